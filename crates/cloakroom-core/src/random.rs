//! Random bytes from the operating system, or from an injected generator.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rand_core::TryCryptoRng;

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
#[derive(Clone)]
pub struct Random(Option<Arc<Mutex<dyn Fill>>>);

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
        Self(None)
    }

    /// Uses this generator, behind a lock.
    #[must_use]
    pub fn from_rng<R>(rng: R) -> Self
    where
        R: TryCryptoRng + Send + 'static,
        R::Error: Send + Sync + 'static,
    {
        Self(Some(Arc::new(Mutex::new(Generator(rng)))))
    }

    /// Fills `bytes` with random bytes.
    ///
    /// # Errors
    ///
    /// If the source fails. Do not use `bytes` then.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        match &self.0 {
            None => getrandom::fill(bytes).map_err(|error| RandomError(Box::new(error))),
            Some(rng) => rng.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes),
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

impl Default for Random {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Random(injected)" } else { "Random(system)" })
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
