//! `cloakroom keys`.

use std::path::Path;

use cloakroom::UnixTime;
use cloakroom::core::Kid;
use cloakroom::jwt::{Algorithm, KeyError, KeyStatus, Resealed, SigningKey};
use serde_json::json;
use zeroize::Zeroizing;

use crate::args::Keys;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::{plain, table};
use crate::settings::algorithm;

pub(crate) async fn run(context: &Context, command: Keys) -> Result<(), Failure> {
    let output = context.output;
    match command {
        Keys::List => {
            let keys = context.issuer().await?.key_states().await?;
            output.result(&json!({ "keys": keys }), &listed(&keys))
        }
        Keys::Rotate { algorithm: name } => {
            let name = name.as_deref().map(algorithm).transpose()?;
            let issuer = context.issuer().await?;
            let event = match name {
                Some(algorithm) => issuer.rotate_keys_of(algorithm).await?,
                None => issuer.rotate_keys().await?,
            };
            output.result(&event, "the signing key was rotated")
        }
        Keys::Retire { kid } => {
            let kid = Kid::new(&kid)?;
            let event = context.issuer().await?.retire_key(&kid).await?;
            output.result(&event, &format!("the key {kid} signs no more"))
        }
        Keys::Compromise { kid } => {
            let kid = Kid::new(&kid)?;
            context.issuer().await?.compromise_key(&kid).await?;
            let text = format!(
                "the key {kid} is marked as compromised, and a revocation denies what it signed"
            );
            output.result(&json!({ "compromised": kid }), &text)
        }
        Keys::Import { file, algorithm: name } => {
            let key = read(&file, algorithm(&name)?)?;
            let kid = key.kid().clone();
            let event = context.issuer().await?.import_key(key).await?;
            output.result(&event, &format!("the key {kid} is published"))
        }
        Keys::Reseal => {
            let done = context.issuer().await?.reseal_keys().await?;
            output.result(&done, &resealed(&done))
        }
    }
}

fn listed(keys: &[KeyStatus]) -> String {
    let time = |time: Option<UnixTime>| time.map_or("-".to_owned(), |time| time.to_string());
    let rows: Vec<[String; 8]> = keys
        .iter()
        .map(|key| {
            let state = match (key.compromised_at, key.signs_now) {
                (Some(_), _) => "compromised".to_owned(),
                (None, true) => "signs".to_owned(),
                (None, false) => format!("{:?}", key.state).to_lowercase(),
            };
            [
                plain(key.kid.as_str()),
                plain(&key.algorithm),
                state,
                key.published.to_string(),
                time(key.signs_from),
                time(key.signs_until),
                time(key.last_used),
                plain(key.sealed_under.as_deref().unwrap_or("-")),
            ]
        })
        .collect();
    let heading = [
        "KID",
        "ALG",
        "STATE",
        "PUBLISHED",
        "SIGNS FROM",
        "SIGNS UNTIL",
        "LAST USED",
        "SEALED UNDER",
    ];
    table(heading, &rows)
}

fn resealed(done: &Resealed) -> String {
    let mut text = format!(
        "sealed {} keys again, under the key-encryption key {}",
        done.resealed, done.current
    );
    if done.remaining > 0 {
        text.push_str(&format!("; {} are left: run this again", done.remaining));
    }
    match done.removable.is_empty() {
        true => text.push_str("; no older key-encryption key can be removed"),
        false => text.push_str(&format!("; you may remove these: {}", done.removable.join(", "))),
    }
    text
}

/// The private key in a file.
fn read(file: &Path, algorithm: Algorithm) -> Result<SigningKey, Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("the key file {}: {why}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|error| refused(&error))?;
    let text = Zeroizing::new(text);
    let key = match text.trim_start().starts_with('{') {
        true => SigningKey::import_jwk(algorithm, &text),
        false => SigningKey::import_pem(algorithm, &text),
    };
    key.map_err(|error: KeyError| refused(&error))
}
