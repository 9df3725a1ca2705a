//! The commands of the guides, run as they are written.

use std::process::Command;

use cloakroom::Subject;

use crate::support::*;

/// The lines of the shell blocks that run the program.
fn commands(text: &str) -> Vec<&str> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(str::lines);
    lines.filter(|line| line.starts_with("cloakroom ")).collect()
}

#[tokio::test]
async fn every_command_of_the_guides_works_as_written() {
    let guides = [
        include_str!("../../../../docs/operations.md"),
        include_str!("../../../../docs/keys.md"),
        include_str!("../../README.md"),
    ];
    let mut tried = 0;
    for command in guides.into_iter().flat_map(commands) {
        let file = File::new();
        let issuer = server(&file.open()).await;
        let tokens = login(&issuer, "app", "alice", "laptop").await;
        let grant = issuer.sessions(&Subject::user("alice").unwrap()).await.unwrap()[0].grant;
        let kid = issuer.keys().signer().await.unwrap().kid().clone();
        file.write("token", tokens.access_token.expose());
        file.write(
            "audit.jsonl",
            &format!("{{\"event\":\"reuse_detected\",\"grant\":\"{grant}\"}}\n"),
        );
        file.write(
            "old.pem",
            include_str!("../../../cloakroom-jwt/src/key/import/test_keys/p256-sec1.pem"),
        );
        let line = command.replace("GRANT", &grant.to_string()).replace("KID", kid.as_str());
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_cloakroom"));
        let path =
            format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-c", &line])
            .current_dir(file.folder.path())
            .env("PATH", path)
            .env("CLOAKROOM_STORE", "sqlite:tokens.db")
            .env("CLOAKROOM_ISSUER", ISSUER)
            .env("CLOAKROOM_HANDLE_SECRET", hex(HANDLE_SECRET))
            .env("CLOAKROOM_SEALING_KEY", hex(SEALING_KEY))
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        tried += 1;
    }
    assert!(tried >= 15, "{tried}");
}
