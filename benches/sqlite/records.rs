//! The grants and tokens that the stores hold.

use std::time::Duration;

use cloakroom_benches::Dice;
use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord};
use cloakroom_core::store::{Advance, ChainUpdate};
use cloakroom_core::time::{Clock as _, SystemClock, UnixTime};
use cloakroom_core::{Audience, ClientId, GrantId, Random, Scope, Subject, TokenDigest, TokenKind};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// How much later a grant's chain ends after each refresh.
const SLIDE: Duration = Duration::from_millis(20);

/// The key of a token lookup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(crate) grant: GrantId,
    pub(crate) digest: TokenDigest,
}

/// Builds records of the same size as the engine's.
#[derive(Clone)]
pub(crate) struct Records {
    dice: Dice,
    chain_key: ChainKey,
    pub(crate) now: UnixTime,
}

impl Records {
    pub(crate) fn new(seed: u64) -> Self {
        let chain_key = ChainKey::random(&Random::system()).expect("random bytes");
        Self { dice: Dice::new(seed), chain_key, now: SystemClock::new().now() }
    }

    /// A grant with a refresh token, which ends then.
    pub(crate) fn grant(&mut self, end: UnixTime) -> GrantRecord {
        let id = GrantId::from_bytes(self.bytes());
        let mut grant = GrantRecord::new(
            id,
            ClientId::new("web-app").expect("valid"),
            Subject::user(format!("user-{}", self.dice.below(10_000_000))).expect("valid"),
            Audience::one("https://orders.example").expect("valid"),
            self.now,
            end,
        );
        grant.scope = Scope::parse("orders:read orders:write").expect("valid");
        grant.row_expires_at = end;
        let chain =
            Chain::new(TokenKind::Refresh, self.digest(), self.chain_key.clone(), self.now + HOUR);
        grant.chain = Some(chain);
        grant
    }

    pub(crate) fn token(&mut self, grant: &GrantRecord, end: UnixTime) -> TokenRecord {
        TokenRecord::new(self.digest(), grant, self.now, end)
    }

    /// A refresh: the grant moves on, and gets a token that lives for ten minutes from `now`.
    pub(crate) fn refresh(&mut self, grant: &mut GrantRecord, now: UnixTime) -> Advance {
        let chain = grant.chain.as_mut().expect("it has one");
        let expected = chain.position();
        chain.generation += 1;
        // As it slides with each refresh, and the end of the row with it.
        chain.expires_at = chain.expires_at + SLIDE;
        grant.row_expires_at = grant.row_expires_at + SLIDE;
        chain.digest = self.digest();
        let token = TokenRecord::new(self.digest(), grant, now, now + HOUR / 6);
        Advance {
            grant: grant.id,
            expected,
            now,
            change: ChainUpdate::Move(Box::new(grant.clone())),
            tokens: vec![token],
        }
    }

    fn digest(&mut self) -> TokenDigest {
        TokenDigest::from_bytes(self.bytes())
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.dice.below(256) as u8)
    }
}
