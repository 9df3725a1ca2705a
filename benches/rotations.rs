//! How long issuing and verifying take at 30 % load while signing keys are rotated, beside the same without.
//!
//! ```sh
//! cargo bench --package cloakroom-benches --bench rotations
//! ```
//!
//! It takes nine minutes, so that `cargo xtask bench` does not run it. An argument is another algorithm than
//! ES256, such as `RS256`.
//!
//! One thread issues a JWT and verifies it, at times that are set beforehand; each call is timed from when it
//! was due, so that one that is late makes those after it late. Another thread maintains the ring of keys, and
//! orders a rotation whenever every verifier knows the next key. The run beside it differs only in that it
//! orders none.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom_benches::{Suite, now, quantile};
use cloakroom_core::format::{MintContext, TokenFormat as _, TokenTerms};
use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::time::{Clock as _, SystemClock};
use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject, TokenSecret};
use cloakroom_jwt::{AesGcmSealer, Algorithm, JwtFormat, KeyManager, KeyManagerError, Verifier};
use cloakroom_memory::MemoryStore;
use tokio::runtime;

type Failure = Box<dyn Error + Send + Sync>;

const ISSUER: &str = "https://as.example";
const AUDIENCE: &str = "https://orders.example";

/// How much of the time of its thread the calls take.
const LOAD: f64 = 0.3;

/// The shortest time that a copy of the ring may be old, and so the shortest time between two rotations.
const RELOAD: Duration = Duration::from_secs(1);

fn main() -> Result<(), Failure> {
    let suite = Suite::from_args();
    let named = env::args().skip(1).find_map(|argument| argument.parse().ok());
    let algorithm: Algorithm = named.unwrap_or_default();
    let (pairs, rotations) = if suite.is_quick() { (1, 1) } else { (5, 20) };
    let mut ratios = [Vec::new(), Vec::new()];
    for pair in 1..=pairs {
        // They take turns at who is first.
        let order = if pair % 2 == 0 { [true, false] } else { [false, true] };
        let mut times = [[0.0; 2]; 2];
        for with in order {
            times[usize::from(with)] = World::new(algorithm)?.run(rotations, with)?;
        }
        let [without, with] = times;
        for (operation, (name, ratios)) in ["issue", "verify"].iter().zip(&mut ratios).enumerate() {
            let (without, with) = (without[operation], with[operation]);
            suite.say(format_args!(
                "{algorithm}, pair {pair}: p99.9 of {name} {:.1} µs, with {rotations} rotations {:.1} µs",
                without / 1e3,
                with / 1e3
            ));
            ratios.push(with / without);
        }
    }
    for (name, mut ratios) in ["issue", "verify"].iter().zip(ratios) {
        ratios.sort_unstable_by(f64::total_cmp);
        let (middle, all) = (ratios[ratios.len() / 2], &ratios);
        suite.say(format_args!("{algorithm}, p99.9 of {name}: median {middle:.2} of {all:.2?}"));
    }
    Ok(())
}

struct World {
    keys: KeyManager,
    format: JwtFormat,
    verifier: Verifier,
    grant: GrantRecord,
    random: Random,
}

impl World {
    fn new(algorithm: Algorithm) -> Result<Self, Failure> {
        let clock = Arc::new(SystemClock::new());
        // A verifier knows a key after two loads of the ring.
        let policy = KeyPolicy::default()
            .jwks_max_age(Duration::ZERO)
            .clock_skew(Duration::ZERO)
            .reload(RELOAD)
            .publish_ahead(2 * RELOAD);
        let sealer = Arc::new(AesGcmSealer::random()?);
        let keys = KeyManager::builder(Arc::new(MemoryStore::new()), sealer)
            .algorithm(algorithm)
            .policy(policy);
        let keys = runtime::Builder::new_current_thread().build()?.block_on(keys.build())?;
        let format = JwtFormat::new(keys.clone(), ISSUER, clock.clone());
        let verifier = Verifier::new(ISSUER, AUDIENCE).clock(clock.clone());
        let begin = clock.now();
        let mut grant = GrantRecord::new(
            GrantId::from_bytes([9; 16]),
            ClientId::new("web-app")?,
            Subject::user("alice")?,
            Audience::one(AUDIENCE)?,
            begin,
            begin + Duration::from_secs(86_400),
        );
        grant.scope = Scope::parse("orders:read orders:write")?;
        Ok(Self { keys, format, verifier, grant, random: Random::system() })
    }

    fn issue(&self) -> Result<TokenSecret, Failure> {
        let begin = SystemClock::new().now();
        let end = begin + Duration::from_secs(600);
        let (scope, audience) = (self.grant.scope.clone(), self.grant.audience.clone());
        let terms = TokenTerms::new(begin, end, scope, audience);
        let context = MintContext::new(ISSUER, &self.grant, &terms, &self.random);
        Ok(now(self.format.mint(context))?.token)
    }

    fn verify(&self, token: &TokenSecret) -> Result<(), Failure> {
        self.verifier.verify(&self.keys.keys()?, token.expose())?;
        Ok(())
    }

    /// The p99.9 of both operations in nanoseconds, until there were this many rotations, or in the time that
    /// they would take.
    fn run(self, rotations: u32, rotates: bool) -> Result<[f64; 2], Failure> {
        let every = self.interval()?;
        let (stop, rotated) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            let maintenance = scope.spawn(|| self.maintain(rotates, &stop, &rotated));
            let times =
                self.load(every, rotations, || rotates.then(|| rotated.load(Ordering::Relaxed)));
            stop.store(true, Ordering::Relaxed);
            maintenance.join().map_err(|_| "maintenance panicked")??;
            Ok(times?.map(|times| quantile(&times, 0.999)))
        })
    }

    /// The time from one call to the next.
    fn interval(&self) -> Result<Duration, Failure> {
        let (begin, calls) = (Instant::now(), 500);
        for _ in 0..calls {
            self.verify(&self.issue()?)?;
        }
        Ok(begin.elapsed().div_f64(f64::from(2 * calls) * LOAD))
    }

    /// How long each call took from when it was due.
    fn load(
        &self,
        every: Duration,
        rotations: u32,
        rotated: impl Fn() -> Option<u32>,
    ) -> Result<[Vec<f64>; 2], Failure> {
        let length = rotations * (2 * RELOAD + RELOAD / 10);
        let room = (length.as_secs_f64() / every.as_secs_f64()) as usize;
        let (mut issued, mut verified) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut due = Instant::now();
        let end = due + length;
        // Rotations that take longer have their time, up to a limit.
        while due < end || rotated().is_some_and(|rotated| rotated < rotations) {
            if due > end + length + RELOAD {
                return Err("the rotations took too long".into());
            }
            let token = timed(&mut due, every, &mut issued, || self.issue())?;
            timed(&mut due, every, &mut verified, || self.verify(&token))?;
        }
        Ok([issued, verified])
    }

    /// What runs beside requests.
    fn maintain(
        &self,
        rotates: bool,
        stop: &AtomicBool,
        rotated: &AtomicU32,
    ) -> Result<(), Failure> {
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            while !stop.load(Ordering::Relaxed) {
                self.keys.maintain().await?;
                if rotates {
                    match self.keys.rotate().await {
                        Ok(_) => drop(rotated.fetch_add(1, Ordering::Relaxed)),
                        Err(KeyManagerError::SuccessorNotKnown { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                // More often than the ring grows too old.
                tokio::time::sleep(RELOAD / 20).await;
            }
            Ok(())
        })
    }
}

/// Waits until a call is due, and times it from then on.
fn timed<T>(
    due: &mut Instant,
    every: Duration,
    times: &mut Vec<f64>,
    call: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    // A thread that slept would wake late.
    while Instant::now() < *due {
        std::hint::spin_loop();
    }
    let answer = call()?;
    times.push(due.elapsed().as_nanos() as f64);
    *due += every;
    Ok(answer)
}
