//! Random bytes from the operating system, or from an injected generator.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand_core::TryCryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

/// The source of random bytes failed.
#[derive(Debug, thiserror::Error)]
#[error("the source of random bytes failed")]
pub struct RandomError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// The source of every random byte: secrets of handles, grant ids, `jti`s, nonces.
///
/// The default is the operating system ([`Random::system`]). Tests can inject any [`rand_core`]
/// generator. A clone is cheap.
///
/// ```
/// use cloakroom_core::Random;
///
/// let random = Random::system();
/// let a: [u8; 16] = random.array()?;
/// let b: [u8; 16] = random.array()?;
/// assert_ne!(a, b);
/// # Ok::<(), cloakroom_core::RandomError>(())
/// ```
pub struct Random(Source);

enum Source {
    System,
    Injected(Arc<Mutex<dyn Fill>>),
    /// On the heap, so that a move leaves no copy behind.
    Batch(Box<Mutex<Batch>>),
}

trait Fill: Send {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError>;
}

struct Generator<R>(R);

impl<R> Fill for Generator<R>
where
    R: TryCryptoRng + Send,
    R::Error: Send + Sync + 'static,
{
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.0.try_fill_bytes(bytes).map_err(|error| RandomError(Box::new(error)))
    }
}

impl Random {
    /// The generator of the operating system, called for each value.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// Uses this generator, behind a lock.
    #[must_use]
    pub fn from_rng<R>(rng: R) -> Self
    where
        R: TryCryptoRng + Send + 'static,
        R::Error: Send + Sync + 'static,
    {
        Self(Source::Injected(Arc::new(Mutex::new(Generator(rng)))))
    }

    /// A source for one operation that needs about this many bytes, at most 96, in several parts. It gets all of them
    /// from the operating system in one call, when the first part is needed: one larger call costs no more than a small
    /// one. An injected generator is still called for each part.
    ///
    /// Drop it at the end of the operation. No byte is handed out twice, and each is wiped as soon as it has been
    /// handed out. If a process or a virtual machine is copied between operations, the copy contains no bytes that are
    /// still to be used; with a buffer for each thread, it would.
    #[doc(hidden)]
    #[must_use]
    pub fn batch(&self, bytes: usize) -> Self {
        match &self.0 {
            Source::Injected(rng) => Self(Source::Injected(Arc::clone(rng))),
            _ => Self(Source::Batch(Box::new(Mutex::new(Batch::new(bytes))))),
        }
    }

    /// Fills `bytes` with random bytes.
    ///
    /// # Errors
    ///
    /// If the source fails. Do not use `bytes` then.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        match &self.0 {
            Source::System => system(bytes),
            Source::Injected(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes),
            Source::Batch(batch) => {
                batch.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes)
            }
        }
    }

    /// An array of random bytes.
    ///
    /// # Errors
    ///
    /// If the source fails.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], RandomError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }
}

fn system(bytes: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(bytes).map_err(|error| RandomError(Box::new(error)))
}

/// The random bytes of one operation.
struct Batch {
    bytes: Zeroizing<[u8; 96]>,
    /// Those that are not handed out yet: all wiped before it, and none used after it.
    rest: Range<usize>,
    /// How many to get; zero as soon as they were.
    planned: usize,
}

impl Batch {
    fn new(bytes: usize) -> Self {
        Self { bytes: Zeroizing::new([0; 96]), rest: 0..0, planned: bytes.min(96) }
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        if self.planned > 0 {
            system(&mut self.bytes[..self.planned])?;
            self.rest = 0..self.planned;
            self.planned = 0;
        }
        if out.len() > self.rest.len() {
            return system(out);
        }
        let part = self.rest.start..self.rest.start + out.len();
        self.rest.start = part.end;
        out.copy_from_slice(&self.bytes[part.clone()]);
        self.bytes[part].zeroize();
        Ok(())
    }
}

impl Clone for Random {
    /// A clone of a batch draws from the operating system: each byte of a batch is used once.
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Source::Injected(rng) => Source::Injected(Arc::clone(rng)),
            Source::System | Source::Batch(_) => Source::System,
        })
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Source::Injected(_) => "Random(injected)",
            Source::System | Source::Batch(_) => "Random(system)",
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn an_injected_generator_is_used() {
        let random = || Random::from_rng(rand_chacha::ChaCha20Rng::from_seed([7; 32]));
        let (a, b): ([u8; 8], [u8; 8]) = (random().array().unwrap(), random().array().unwrap());
        assert_eq!(a, b);
    }

    #[test]
    fn a_batch_hands_out_each_byte_once_and_wipes_it() {
        let random = Random::system().batch(80);
        let Source::Batch(batch) = &random.0 else { panic!("it is a batch") };
        let all = || *batch.lock().unwrap().bytes;
        assert_eq!(all(), [0; 96], "nothing is drawn before it is needed");
        let first: [u8; 16] = random.array().unwrap();
        let drawn = all();
        assert_eq!(drawn[..16], [0; 16]);
        assert_ne!(drawn[16..80], [0; 64]);
        assert_eq!(drawn[80..], [0; 16]);
        let rest: [u8; 64] = random.array().unwrap();
        assert_eq!(rest, drawn[16..80]);
        assert_eq!(all(), [0; 96]);
        let more: [u8; 16] = random.array().unwrap();
        assert!(more != [0; 16] && more != first && more != rest[..16]);
        assert_eq!(all(), [0; 96], "it is not filled a second time");
    }

    #[test]
    fn what_does_not_fit_into_a_batch_is_drawn_by_itself() {
        let random = Random::system().batch(usize::MAX);
        let large: [u8; 200] = random.array().unwrap();
        assert_ne!(large[..100], large[100..]);
        assert_ne!(large[100..], [0; 100]);
        let small: [u8; 8] = random.array().unwrap();
        assert_ne!(small, [0; 8]);
    }

    #[test]
    fn two_holders_of_a_batch_share_no_byte() {
        let random = Random::system().batch(64);
        let _: [u8; 8] = random.array().unwrap();
        let clone = random.clone();
        let (ours, theirs): ([u8; 32], [u8; 32]) =
            (random.array().unwrap(), clone.array().unwrap());
        assert_ne!(ours, theirs);
        let again = random.batch(64);
        let (ours, theirs): ([u8; 16], [u8; 16]) =
            (random.array().unwrap(), again.array().unwrap());
        assert_ne!(ours, theirs);
    }

    #[test]
    fn an_injected_generator_stays_in_charge_of_a_batch() {
        let random = || Random::from_rng(rand_chacha::ChaCha20Rng::from_seed([7; 32]));
        let (plain, batch) = (random(), random().batch(80));
        for _ in 0..4 {
            let (one, other): ([u8; 24], [u8; 24]) =
                (plain.array().unwrap(), batch.array().unwrap());
            assert_eq!(one, other);
        }
    }

    #[test]
    fn a_failing_generator_is_an_error() {
        struct Broken;
        impl rand_core::TryRng for Broken {
            type Error = std::io::Error;
            fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
                Err(std::io::Error::other("broken"))
            }
            fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
                Err(std::io::Error::other("broken"))
            }
            fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
                Err(std::io::Error::other("broken"))
            }
        }
        impl TryCryptoRng for Broken {}
        assert!(Random::from_rng(Broken).array::<4>().is_err());
    }
}
