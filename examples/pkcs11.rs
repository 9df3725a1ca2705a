//! A [`Signer`] whose private key stays in a hardware security module, over PKCS#11.
//!
//! The module's calls block, so they run on threads of their own. At most `threads` of them are in the
//! module at a time, and at most `waiting` callers wait for one; further callers are refused at once. Each
//! waits for at most `timeout`. A module that hangs so costs threads and answers, and never more.
//!
//! ```console
//! $ cargo run --example pkcs11 -- --demo      # makes a token of SoftHSM in a temporary folder
//! $ PKCS11_PIN=… cargo run --example pkcs11 -- --module /usr/lib/softhsm/libsofthsm2.so
//! ```
//!
//! ```toml
//! [dependencies]
//! cryptoki = "0.12"
//! ```

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use cloakroom::core::Kid;
use cloakroom::jwt::{
    ACCESS_TOKEN_TYP, Algorithm, Jwk, JwkSet, KeySet, SignError, Signer, Verifier, sign_jwt,
};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, oneshot};

type Failure = Box<dyn Error + Send + Sync>;

/// The OID of P-256 in DER, which PKCS#11 calls the parameters of the curve.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// The name of the key in the module.
const LABEL: &str = "cloakroom-es256";

/// How much is asked of the module.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How many signatures the module makes at the same time.
    threads: usize,
    /// How many callers may wait for one.
    waiting: usize,
    /// How long a caller waits.
    timeout: Duration,
}

/// Signs with an EC key on P-256 (ES256) in a PKCS#11 module.
struct Pkcs11Signer {
    kid: Kid,
    jwk: Jwk,
    /// A permit is held until the module has answered, even if its caller has given up.
    in_flight: Arc<Semaphore>,
    jobs: SyncSender<Job>,
    threads: Vec<JoinHandle<()>>,
    timeout: Duration,
}

/// A digest to sign.
struct Job {
    digest: [u8; 32],
    answer: oneshot::Sender<Result<Vec<u8>, cryptoki::error::Error>>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl Pkcs11Signer {
    /// Opens a session for each thread, and finds the key, or makes it if there is none.
    fn open(module: &Path, pin: &AuthPin, limits: Limits) -> Result<Self, Failure> {
        let module = Pkcs11::new(module)?;
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let slot = module.get_slots_with_initialized_token()?;
        let slot = *slot.first().ok_or("the module has no token")?;
        let session = module.open_rw_session(slot)?;
        // A login counts for all sessions of the process.
        session.login(UserType::User, Some(pin))?;
        let (public, private) = key_pair(&session)?;
        let jwk = public_jwk(&session, public)?;
        let (jobs, queue) = sync_channel(limits.threads + limits.waiting);
        let queue = Arc::new(Mutex::new(queue));
        let mut sessions = vec![session];
        while sessions.len() < limits.threads.max(1) {
            sessions.push(module.open_rw_session(slot)?);
        }
        let mut threads = Vec::new();
        for session in sessions {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name("pkcs11".into());
            threads.push(thread.spawn(move || work(&queue, &session, private))?);
        }
        let kid = jwk.kid().cloned().ok_or("the key has no kid")?;
        let in_flight = Arc::new(Semaphore::new(limits.threads + limits.waiting));
        Ok(Self { kid, jwk, in_flight, jobs, threads, timeout: limits.timeout })
    }

    /// Closes the sessions, and waits for that as long as for a signature. Call it before the process ends: a module
    /// may crash if its threads are still at work while its libraries clean up.
    async fn close(self) -> Result<(), Failure> {
        let Self { jobs, threads, timeout, .. } = self;
        drop(jobs);
        let (ended, all) = oneshot::channel();
        // Not a task, since one that hangs would keep the runtime from ending.
        std::thread::spawn(move || {
            let ends: Vec<_> = threads.into_iter().map(JoinHandle::join).collect();
            let _ = ended.send(ends);
        });
        let ends = tokio::time::timeout(timeout, all).await??;
        match ends.iter().all(Result::is_ok) {
            true => Ok(()),
            false => Err("a thread of the module panicked".into()),
        }
    }
}

/// Signs what comes, until the signer is dropped.
fn work(queue: &Mutex<Receiver<Job>>, session: &Session, key: ObjectHandle) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        // Its caller has given up in the meantime.
        if job.answer.is_closed() {
            continue;
        }
        // ES256 signs the digest, and PKCS#11 answers `r` and `s`, as JWS does.
        let signature = session.sign(&Mechanism::Ecdsa, key, &job.digest);
        let _ = job.answer.send(signature);
    }
}

#[async_trait]
impl Signer for Pkcs11Signer {
    fn kid(&self) -> &Kid {
        &self.kid
    }

    fn algorithm(&self) -> Algorithm {
        Algorithm::Es256
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError> {
        let permit = Arc::clone(&self.in_flight).try_acquire_owned();
        let permit = permit.map_err(|_| SignError::new("too many signatures are under way"))?;
        let digest = Sha256::digest(signing_input).into();
        let (answer, signature) = oneshot::channel();
        let job = Job { digest, answer, _permit: permit };
        // There is room: the queue is as long as there are permits.
        self.jobs.try_send(job).map_err(|_| SignError::new("the module's threads have ended"))?;
        match tokio::time::timeout(self.timeout, signature).await {
            Ok(Ok(signature)) => signature.map_err(SignError::new),
            Ok(Err(_)) => Err(SignError::new("the module's thread has ended")),
            Err(_) => Err(SignError::new("the module did not answer in time")),
        }
    }
}

impl fmt::Debug for Pkcs11Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The public and the private key. The private key can neither be read nor leave the module.
fn key_pair(session: &Session) -> Result<(ObjectHandle, ObjectHandle), Failure> {
    let find = |class| {
        let label = Attribute::Label(LABEL.into());
        session.find_objects(&[Attribute::Class(class), Attribute::KeyType(KeyType::EC), label])
    };
    let found = (find(ObjectClass::PUBLIC_KEY)?, find(ObjectClass::PRIVATE_KEY)?);
    if let (Some(public), Some(private)) = (found.0.first(), found.1.first()) {
        return Ok((*public, *private));
    }
    let public = [
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Verify(true),
        Attribute::EcParams(P256.to_vec()),
        Attribute::Label(LABEL.into()),
    ];
    let private = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Label(LABEL.into()),
    ];
    Ok(session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?)
}

/// The public key as a JWK, whose thumbprint is its `kid`.
fn public_jwk(session: &Session, key: ObjectHandle) -> Result<Jwk, Failure> {
    let attributes = session.get_attributes(key, &[AttributeType::EcPoint])?;
    let Some(Attribute::EcPoint(point)) = attributes.first() else {
        return Err("the module does not show the public key".into());
    };
    // An OCTET STRING around the uncompressed point: 4, x, y.
    let [0x04, 65, 0x04, xy @ ..] = &point[..] else {
        return Err("the public key is not a point on P-256".into());
    };
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
        "x": text(&xy[..32]), "y": text(&xy[32..]),
    });
    let key: Jwk = serde_json::from_value(jwk.clone())?;
    jwk["kid"] = key.thumbprint().as_str().into();
    Ok(serde_json::from_value(jwk)?)
}

#[derive(Debug, Parser)]
struct Arguments {
    /// The PKCS#11 library of the module. The PIN is read from the variable `PKCS11_PIN`.
    #[arg(long, default_value = "/usr/lib/softhsm/libsofthsm2.so")]
    module: PathBuf,
    /// Makes a token of `SoftHSM` in a temporary folder, and uses it.
    #[arg(long)]
    demo: bool,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    if arguments.demo {
        return demo(&arguments.module);
    }
    let pin = AuthPin::new(std::env::var("PKCS11_PIN")?.into());
    let limits = Limits { threads: 4, waiting: 60, timeout: Duration::from_secs(2) };
    let signer = Arc::new(Pkcs11Signer::open(&arguments.module, &pin, limits)?);

    // What the module signs verifies with the published key.
    let keys = KeySet::prepare(&JwkSet::new(vec![signer.jwk.clone()]));
    let verifier = Verifier::new("https://as.example", "https://orders.example");
    let claims = json!({
        "iss": "https://as.example", "aud": "https://orders.example", "sub": "alice",
        "client_id": "web-app", "scope": "orders:read", "jti": "1", "iat": 1, "exp": u32::MAX,
    });
    let jwt = sign_jwt(&*signer, ACCESS_TOKEN_TYP, &claims).await?;
    verifier.verify(&keys, jwt.expose())?;
    println!("the module signed a JWT with the key {}", signer.kid());

    // More callers at once than the limits allow: each gets a signature or a refusal.
    let callers: Vec<_> = (0..200)
        .map(|_| {
            let (signer, claims) = (Arc::clone(&signer), claims.clone());
            tokio::spawn(async move { sign_jwt(&*signer, ACCESS_TOKEN_TYP, &claims).await })
        })
        .collect();
    let (mut signed, mut refused) = (0, 0);
    for caller in callers {
        match caller.await? {
            Ok(jwt) => {
                verifier.verify(&keys, jwt.expose())?;
                signed += 1;
            }
            Err(_) => refused += 1,
        }
    }
    println!("of 200 callers at once, {signed} got a signature and {refused} were refused");
    if signed < 64 {
        return Err("fewer callers than the limits allow got a signature".into());
    }
    // Everything that was under way has ended, and the next caller is served.
    sign_jwt(&*signer, ACCESS_TOKEN_TYP, &claims).await?;
    Arc::into_inner(signer).ok_or("somebody still signs")?.close().await?;
    println!("pkcs11: ok");
    Ok(())
}

/// Runs this program again with a token of its own.
fn demo(module: &Path) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("softhsm2.conf");
    std::fs::write(&settings, format!("directories.tokendir = {}\n", folder.path().display()))?;
    let pin = "1234-demonstration";
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "demo", "--so-pin", pin, "--pin", pin])
        .env("SOFTHSM2_CONF", &settings)
        .output()
        .map_err(|error| format!("softhsm2-util (Debian: softhsm2) cannot be run: {error}"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into());
    }
    // Twice: the second run finds the key of the first.
    for _ in 0..2 {
        let status = Command::new(std::env::current_exe()?)
            .arg("--module")
            .arg(module)
            .env("SOFTHSM2_CONF", &settings)
            .env("PKCS11_PIN", pin)
            .status()?;
        if !status.success() {
            return Err("the signer failed".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signer whose module never answers.
    fn stuck(limits: Limits) -> (Pkcs11Signer, Receiver<Job>) {
        let (jobs, queue) = sync_channel(limits.threads + limits.waiting);
        let jwk: Jwk = serde_json::from_str(
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        )
        .unwrap();
        let in_flight = Arc::new(Semaphore::new(limits.threads + limits.waiting));
        let (kid, timeout) = (jwk.thumbprint(), limits.timeout);
        (Pkcs11Signer { kid, jwk, in_flight, jobs, threads: Vec::new(), timeout }, queue)
    }

    /// Time passes only when everything waits.
    #[tokio::test(start_paused = true)]
    async fn a_module_that_hangs_costs_no_more_than_the_limits() {
        let limits = Limits { threads: 1, waiting: 2, timeout: Duration::from_secs(2) };
        let (signer, queue) = stuck(limits);
        let signer = Arc::new(signer);
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let signer = Arc::clone(&signer);
                tokio::spawn(async move { source(signer.sign(b"x").await) })
            })
            .collect();
        let mut reasons = Vec::new();
        for caller in callers {
            reasons.push(caller.await.unwrap());
        }
        reasons.sort();
        let late = "the module did not answer in time";
        let full = "too many signatures are under way";
        assert_eq!(reasons, [late, late, late, full, full]);
        // Until the module answers, even late, nobody else gets in.
        assert_eq!(source(signer.sign(b"x").await), full);
        assert!(queue.try_iter().all(|job| job.answer.is_closed()));
        drop(queue);
        assert_eq!(source(signer.sign(b"x").await), "the module's threads have ended");
    }

    fn source(result: Result<Vec<u8>, SignError>) -> String {
        result.unwrap_err().source().unwrap().to_string()
    }
}
