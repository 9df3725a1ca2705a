//! `keys`.

use cloakroom::Caller;

use crate::support::*;

#[tokio::test]
async fn a_key_is_rotated_and_marked_as_compromised() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let tool = file.tool();
    tool.run("keys rotate").expect(0);
    // No verifier may know the next successor yet.
    tool.run("keys rotate").expect(1).says("not every verifier knows the next key yet");
    let signed = jwt(&issuer, "alice").await;
    let kid = issuer.keys().signer().await.unwrap().kid().clone();
    tool.run(&format!("keys compromise {kid}")).expect(0);
    assert!(!issuer.introspect(&signed.access_token, Caller::Internal).await.unwrap().is_active());
    tool.run("keys compromise nobody").expect(1).says("no key nobody");
}
