//! The keys.
//!
//! Keys that change together are in one slot of a cluster, since they share the part in braces. The grants
//! are divided into *buckets* by the leading bits of their ids. A bucket holds its grants with their tokens,
//! the index of their ends, and its part of the index of each subject and client. So every write to a
//! grant is one script in one slot. The log, the rules, the work to do, the signing keys and the check
//! values are in one other slot.

use cloakroom_core::GrantId;
use cloakroom_core::revocation::RuleKey;
use cloakroom_core::store::{Selector, SingleUseId};

use crate::error::OpenError;

/// The number of buckets. It is part of the layout: another number would not find the grants.
pub(crate) const BUCKETS: u8 = 64;

/// The keys below one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    prefix: String,
    log: LogKeys,
}

/// The keys of the slot of the log.
#[derive(Debug, Clone)]
pub(crate) struct LogKeys {
    pub(crate) state: Vec<u8>,
    pub(crate) log: Vec<u8>,
    pub(crate) log_ends: Vec<u8>,
    pub(crate) recent: Vec<u8>,
    pub(crate) work: Vec<u8>,
    pub(crate) work_order: Vec<u8>,
    pub(crate) rule_ends: Vec<u8>,
    pub(crate) signing_keys: Vec<u8>,
    pub(crate) check_values: Vec<u8>,
}

impl Layout {
    const MAX_PREFIX: usize = 64;

    pub(crate) fn new(prefix: &str) -> Result<Self, OpenError> {
        if prefix.is_empty() || prefix.len() > Self::MAX_PREFIX || prefix.contains(['{', '}']) {
            return Err(OpenError::Prefix);
        }
        let key = |name: &str| format!("{{{prefix}}}:{name}").into_bytes();
        let log = LogKeys {
            state: key("state"),
            log: key("log"),
            log_ends: key("log-ends"),
            recent: key("recent"),
            work: key("work"),
            work_order: key("work-order"),
            rule_ends: key("rule-ends"),
            signing_keys: key("keys"),
            check_values: key("values"),
        };
        Ok(Self { prefix: prefix.to_owned(), log })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) const fn log(&self) -> &LogKeys {
        &self.log
    }

    pub(crate) fn grant(&self, id: GrantId) -> Vec<u8> {
        self.in_bucket(bucket(id), b"g:", id.as_bytes())
    }

    /// The index of the ends of a bucket.
    pub(crate) fn ends(&self, bucket: u8) -> Vec<u8> {
        self.in_bucket(bucket, b"e", &[])
    }

    /// The grants of a subject in a bucket.
    pub(crate) fn subject(&self, bucket: u8, subject: &str) -> Vec<u8> {
        self.in_bucket(bucket, b"s:", subject.as_bytes())
    }

    /// The grants of a client in a bucket.
    pub(crate) fn client(&self, bucket: u8, client: &str) -> Vec<u8> {
        self.in_bucket(bucket, b"c:", client.as_bytes())
    }

    /// The index in which the selected grants of a bucket are found.
    pub(crate) fn owner(&self, bucket: u8, of: &Selector) -> Vec<u8> {
        match of {
            Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
                self.subject(bucket, &subject.to_key())
            }
            Selector::Client(client) => self.client(bucket, client.as_str()),
        }
    }

    pub(crate) fn rule(&self, key: &RuleKey) -> Vec<u8> {
        self.rule_of(&key.to_bytes())
    }

    /// The key of a rule, from the bytes of [`RuleKey::to_bytes`].
    pub(crate) fn rule_of(&self, key: &[u8]) -> Vec<u8> {
        [b"{", self.prefix.as_bytes(), b"}:r:", key].concat()
    }

    /// Items are spread over all slots.
    pub(crate) fn item(&self, id: &SingleUseId) -> Vec<u8> {
        [b"{", self.prefix.as_bytes(), b".u", id.as_bytes(), b"}"].concat()
    }

    fn in_bucket(&self, bucket: u8, kind: &[u8], name: &[u8]) -> Vec<u8> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digits = [HEX[usize::from(bucket >> 4)], HEX[usize::from(bucket & 15)]];
        [b"{", self.prefix.as_bytes(), b".", &digits, b"}:", kind, name].concat()
    }
}

/// The bucket of a grant. Ids in one bucket are all lower than those in the next.
pub(crate) fn bucket(id: GrantId) -> u8 {
    id.as_bytes()[0] / (256 / BUCKETS as u16) as u8
}
