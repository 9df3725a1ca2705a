//! The properties of a token that rules can match.

use std::sync::atomic::{AtomicU64, Ordering};

use cloakroom_core::revocation::Epoch;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ActiveToken, ClientId, GrantId, Jti, Kid, Subject, TokenDigest};

/// All of a token that a revocation may name.
///
/// In this order in memory: what is looked at with every request stands first, beside the count of
/// references that every request writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct TokenFacts {
    /// When these facts were last clear.
    pub(crate) cleared: Cleared,
    pub(crate) grant: Option<GrantId>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) issued_at: Option<UnixTime>,
    pub(crate) subject: Option<Subject>,
    pub(crate) client: Option<ClientId>,
    pub(crate) jti: Option<Jti>,
    /// The key that signed it, if it is a JWT.
    pub(crate) kid: Option<Kid>,
    /// Of a phantom JWT: the digest of its handle's digest.
    pub(crate) handle_hash: Option<TokenDigest>,
}

impl TokenFacts {
    pub(crate) fn new(
        token: &ActiveToken,
        kid: Option<Kid>,
        handle_hash: Option<TokenDigest>,
    ) -> Self {
        Self {
            grant: token.grant,
            epoch: token.epoch,
            issued_at: token.issued_at,
            subject: token.subject.clone(),
            client: token.client.clone(),
            jti: token.jti.clone(),
            kid,
            handle_hash,
            cleared: Cleared::default(),
        }
    }
}

/// The edition of the rules that these facts were last clear by: while that is the newest one, they
/// need not be looked up again. No part of the facts; what is made from them starts without it.
#[derive(Debug, Default)]
pub(crate) struct Cleared(AtomicU64);

impl Cleared {
    pub(super) fn is(&self, edition: u64) -> bool {
        // Nothing but the number itself is taken from whoever wrote it.
        self.0.load(Ordering::Relaxed) == edition
    }

    pub(super) fn set(&self, edition: u64) {
        self.0.store(edition, Ordering::Relaxed);
    }
}

impl Clone for Cleared {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Cleared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Cleared {}
