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
    tool.run("keys rotate")
        .expect(1)
        .says("some verifiers may not have the next key yet: rotate again at 20");
    let signed = jwt(&issuer, "alice").await;
    let kid = issuer.keys().signer().await.unwrap().kid().clone();
    tool.run(&format!("keys compromise {kid}")).expect(0);
    assert!(!issuer.introspect(&signed.access_token, Caller::Internal).await.unwrap().is_active());
    tool.run("keys compromise nobody").expect(1).says("no key nobody");
}

fn states(tool: &Tool) -> Vec<(String, String)> {
    let listed = tool.run("keys list --json").expect(0).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let keys = listed["keys"].as_array().unwrap();
    keys.iter().map(|key| (text(&key["kid"]), text(&key["state"]))).collect()
}

#[tokio::test]
async fn keys_are_listed_and_retired() {
    let file = File::new();
    let issuer = server(&file.open()).await;
    let tool = file.tool();
    let before = states(&tool);
    assert_eq!(before.len(), 2);
    let signer = issuer.keys().signer().await.unwrap().kid().to_string();
    assert!(before.contains(&(signer.clone(), "signing".to_owned())), "{before:?}");
    let ran = tool.run("keys list").expect(0);
    assert!(ran.stdout.contains(&format!("{signer}  ES256  signs")), "{ran:#?}");
    tool.run(&format!("keys retire {signer}")).expect(0);
    assert!(states(&tool).contains(&(signer, "retired".to_owned())));
}

/// A key of the server that was there before is published, and refusals name their reason.
#[tokio::test]
async fn a_key_of_another_program_is_imported() {
    let file = File::new();
    server(&file.open()).await;
    let tool = file.tool();
    let key = |name: &str| {
        format!("{}/../cloakroom-jwt/src/key/import/test_keys/{name}", env!("CARGO_MANIFEST_DIR"))
    };
    let import = |name: &str, algorithm: &str| {
        tool.run(&format!("keys import {} --algorithm {algorithm}", key(name)))
    };
    import("p256-sec1.pem", "ES256").expect(0);
    import("rsa.jwk.json", "RS256").expect(0);
    assert_eq!(states(&tool).len(), 4);
    import("p256-pkcs8.pem", "ES256").expect(1).says("is in the ring already");
    for (name, algorithm, why) in [
        ("rsa-1024.pem", "RS256", "1024 bits"),
        ("roca.pem", "RS256", "ROCA"),
        ("secp256k1-sec1.pem", "ES256", "another curve"),
        ("p256-public.pem", "ES256", "public key only"),
        ("encrypted-pkcs8.pem", "ES256", "is encrypted"),
        ("ed25519-pkcs8.pem", "none", "algorithm"),
        ("missing.pem", "ES256", "No such file"),
    ] {
        import(name, algorithm).expect(2).says(why);
    }
    assert_eq!(states(&tool).len(), 4);
    tool.run("doctor").expect(0);
}

/// A key-encryption key is replaced: the old one opens, the new one seals, and the rest is sealed again.
#[tokio::test]
async fn private_keys_are_sealed_again() {
    let file = File::new();
    server(&file.open()).await;
    let newer = file
        .tool()
        .with("CLOAKROOM_SEALING_KEY", &format!("2:{}", hex([0x77; 32])))
        .with("CLOAKROOM_FORMER_SEALING_KEYS", &format!("1:{}", hex(SEALING_KEY)));
    let done = newer.run("keys reseal --json").expect(0).json();
    assert_eq!((&done["current"], &done["resealed"]), (&"2".into(), &2.into()), "{done}");
    assert_eq!(done["removable"], serde_json::json!(["1"]));
    let listed = newer.run("keys list --json").expect(0).json();
    for key in listed["keys"].as_array().unwrap() {
        assert_eq!(key["sealed_under"], "2");
    }
    newer.clone().without("CLOAKROOM_FORMER_SEALING_KEYS").run("doctor").expect(0);
    file.tool().run("doctor").expect(1);
}
