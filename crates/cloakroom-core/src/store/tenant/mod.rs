//! Separation of several issuers in one database.

pub(crate) mod keys;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::ids::{ClientId, GrantId, InvalidValue, Jti, Kid, MAX_ID_BYTES, Subject, UserId};
use crate::record::{GrantRecord, TokenRecord};
use crate::revocation::{Cursor, LogEntry, LogEvent, LogNotifications, RevocationBatch};
use crate::revocation::{Revocation, Rule, RuleKey, Rules, Target};
use crate::secret::TokenDigest;
use crate::store::check_values::{CheckValue, CheckValues};
use crate::store::error::StoreError;
use crate::store::single_use::{SingleUse, SingleUseStore, Spend, Spent};
use crate::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Found, Housekeeping, Listing, Lookup,
    MaintenanceReport, PageRequest, RevokeOutcome, Selector, StoreStatus, TokenStore,
};
use crate::time::UnixTime;

/// The part of one tenant in a store that several issuers share. Each issuer gets a `TenantStore` over
/// the same store.
///
/// A tenant cannot see the clients, subjects, grants, rules, signing keys, log entries and
/// single-use items of another, whatever identifiers they choose. Tenants share the capacity of the
/// database, its bounds, its heartbeats and its housekeeping: maintenance by one tenant serves all.
///
/// In the database, each identifier begins with the name of the tenant and a `/`. These bytes count
/// towards the 255 bytes of an identifier ([`TenantStore::max_id_bytes`]). A longer identifier is
/// [`StoreError::Misuse`]. The random id of a grant is not changed. If a grant id is revoked before a
/// grant is created under it, that revocation holds for every tenant.
///
/// If a store has tenants, do not also give the store itself to an issuer.
///
/// ```
/// use std::sync::Arc;
/// use cloakroom_core::store::{TenantStore, TokenStore};
///
/// fn tenants<S: TokenStore>(store: Arc<S>) -> Result<Vec<TenantStore<S>>, cloakroom_core::InvalidValue> {
///     ["acme", "globex"].map(|name| TenantStore::new(Arc::clone(&store), name)).into_iter().collect()
/// }
/// ```
pub struct TenantStore<S: ?Sized> {
    pub(crate) store: Arc<S>,
    pub(crate) name: String,
}

/// Ends the name of a tenant. No name contains it.
const END: char = '/';

/// The error for an identifier that is too long.
const TOO_LONG: &str = "an identifier with its tenant's name has more than 255 bytes";

impl<S: ?Sized> TenantStore<S> {
    /// The part of the tenant with this name. The name is in every row, so you cannot change it
    /// later.
    ///
    /// # Errors
    ///
    /// If the name does not have 1 to 32 characters of `A-Z a-z 0-9 - _ .`.
    pub fn new(store: Arc<S>, name: &str) -> Result<Self, InvalidValue> {
        if name.is_empty() || name.len() > 32 {
            return Err(InvalidValue::new("tenant name", "it must have 1 to 32 characters"));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(InvalidValue::new("tenant name", "it may contain only A-Z a-z 0-9 - _ ."));
        }
        Ok(Self { store, name: name.to_owned() })
    }

    /// The tenant's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The largest size of an identifier of this tenant (of a client, a user, a JWT or a key), in
    /// bytes.
    #[must_use]
    pub fn max_id_bytes(&self) -> usize {
        MAX_ID_BYTES - self.name.len() - END.len_utf8()
    }

    /// The largest size of the name of a check value of this tenant, in bytes.
    #[must_use]
    pub fn max_name_bytes(&self) -> usize {
        CheckValue::MAX_NAME_BYTES - CheckValue::TENANTS.len() - self.name.len() - END.len_utf8()
    }

    /// An identifier as the database has it.
    fn inward<T>(
        &self,
        id: &str,
        parse: impl FnOnce(String) -> Result<T, InvalidValue>,
    ) -> Result<T, StoreError> {
        parse(format!("{}{END}{id}", self.name)).map_err(|_| StoreError::Misuse(TOO_LONG))
    }

    /// An identifier as the tenant knows it; `None` if it belongs to another tenant.
    fn outward<'a>(&self, id: &'a str) -> Option<&'a str> {
        id.strip_prefix(&*self.name)?.strip_prefix(END)
    }

    fn client_in(&self, client: &ClientId) -> Result<ClientId, StoreError> {
        self.inward(client.as_str(), ClientId::new)
    }

    fn client_out(&self, client: &ClientId) -> Option<ClientId> {
        ClientId::new(self.outward(client.as_str())?).ok()
    }

    fn subject_in(&self, subject: &Subject) -> Result<Subject, StoreError> {
        Ok(match subject {
            Subject::User(id) => Subject::User(self.inward(id.as_str(), UserId::new)?),
            Subject::Client(id) => Subject::Client(self.client_in(id)?),
        })
    }

    fn subject_out(&self, subject: &Subject) -> Option<Subject> {
        match subject {
            Subject::User(id) => Subject::user(self.outward(id.as_str())?).ok(),
            Subject::Client(id) => self.client_out(id).map(Subject::Client),
        }
    }

    fn grant_in(&self, grant: GrantRecord) -> Result<GrantRecord, StoreError> {
        let client = self.client_in(&grant.client)?;
        let subject = self.subject_in(&grant.subject)?;
        Ok(GrantRecord { client, subject, ..grant })
    }

    fn grant_out(&self, grant: Arc<GrantRecord>) -> Option<Arc<GrantRecord>> {
        let client = self.client_out(&grant.client)?;
        let subject = self.subject_out(&grant.subject)?;
        Some(Arc::new(GrantRecord { client, subject, ..Arc::unwrap_or_clone(grant) }))
    }

    fn selector_in(&self, of: &Selector) -> Result<Selector, StoreError> {
        Ok(match of {
            Selector::Subject(subject) => Selector::Subject(self.subject_in(subject)?),
            Selector::Client(client) => Selector::Client(self.client_in(client)?),
            Selector::SubjectAtClient(subject, client) => {
                Selector::SubjectAtClient(self.subject_in(subject)?, self.client_in(client)?)
            }
        })
    }

    fn target_in(&self, target: Target) -> Result<Target, StoreError> {
        Ok(match target {
            Target::Token { .. } | Target::Grant(_) => target,
            Target::Jti(jti) => Target::Jti(self.inward(jti.as_str(), Jti::new)?),
            Target::Key(kid) => Target::Key(self.inward(kid.as_str(), Kid::new)?),
            Target::Subject(subject) => Target::Subject(self.subject_in(&subject)?),
            Target::Client(client) => Target::Client(self.client_in(&client)?),
            Target::SubjectAtClient(subject, client) => {
                Target::SubjectAtClient(self.subject_in(&subject)?, self.client_in(&client)?)
            }
        })
    }

    fn target_out(&self, target: Target) -> Option<Target> {
        Some(match target {
            Target::Token { .. } | Target::Grant(_) => target,
            Target::Jti(jti) => Target::Jti(Jti::new(self.outward(jti.as_str())?).ok()?),
            Target::Key(kid) => Target::Key(Kid::new(self.outward(kid.as_str())?).ok()?),
            Target::Subject(subject) => Target::Subject(self.subject_out(&subject)?),
            Target::Client(client) => Target::Client(self.client_out(&client)?),
            Target::SubjectAtClient(subject, client) => {
                Target::SubjectAtClient(self.subject_out(&subject)?, self.client_out(&client)?)
            }
        })
    }

    fn rule_key_in(&self, key: &RuleKey) -> Result<RuleKey, StoreError> {
        Ok(match key {
            RuleKey::Jti(jti) => RuleKey::Jti(self.inward(jti.as_str(), Jti::new)?),
            RuleKey::Key(kid) => RuleKey::Key(self.inward(kid.as_str(), Kid::new)?),
            RuleKey::Subject(subject) => RuleKey::Subject(self.subject_in(subject)?),
            RuleKey::Client(client) => RuleKey::Client(self.client_in(client)?),
            RuleKey::SubjectAtClient(subject, client) => {
                RuleKey::SubjectAtClient(self.subject_in(subject)?, self.client_in(client)?)
            }
        })
    }

    /// An entry of the log; `None` if another tenant wrote it. Heartbeats belong to all tenants.
    fn entry_out(&self, entry: LogEntry) -> Option<LogEntry> {
        let event = match entry.event {
            LogEvent::Heartbeat {} => LogEvent::Heartbeat {},
            LogEvent::Revoked { target, bound, client, grant } => {
                // Every entry of a tenant names a client. Its name is empty if there is none.
                let client = client?;
                let client = match self.outward(client.as_str())? {
                    "" => None,
                    client => Some(ClientId::new(client).ok()?),
                };
                LogEvent::Revoked { target: self.target_out(target)?, bound, client, grant }
            }
        };
        Some(LogEntry { event, ..entry })
    }
}

impl<S: TokenStore + ?Sized> TenantStore<S> {
    /// Whether another tenant holds the grant.
    async fn is_others(&self, grant: GrantId) -> Result<bool, StoreError> {
        Ok(match self.store.find(grant, None).await? {
            Lookup::Found(found) => self.grant_out(found.grant).is_none(),
            Lookup::Tombstone | Lookup::Absent => false,
        })
    }
}

impl<S: ?Sized> Clone for TenantStore<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), name: self.name.clone() }
    }
}

impl<S: fmt::Debug + ?Sized> fmt::Debug for TenantStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantStore")
            .field("name", &self.name)
            .field("store", &&*self.store)
            .finish()
    }
}

#[async_trait]
impl<S: CheckValues + ?Sized> CheckValues for TenantStore<S> {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        let values = self.store.check_values().await?;
        if values.iter().any(|value| value.name == CheckValue::ISSUER) {
            let why = "the store belongs to a single issuer without tenants: use another store for tenants";
            return Err(StoreError::Misuse(why));
        }
        let own = |value: CheckValue| {
            let name = self.outward(value.name.strip_prefix(CheckValue::TENANTS)?)?.to_owned();
            Some(CheckValue { name, ..value })
        };
        Ok(values.into_iter().filter_map(own).collect())
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        if name.len() > self.max_name_bytes() {
            return Err(StoreError::Misuse("the name of a check value is too long for a tenant"));
        }
        let name = format!("{}{}{END}{name}", CheckValue::TENANTS, self.name);
        self.store.set_check_value(&name, expected, value).await
    }
}

#[async_trait]
impl<S: TokenStore + ?Sized> TokenStore for TenantStore<S> {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let id = grant.id;
        let created = self.store.create(self.grant_in(grant)?, tokens).await?;
        // The id of a foreign token's grant comes from its digest, so two tenants may use the same id.
        if created == CreateOutcome::Exists && self.is_others(id).await? {
            return Err(StoreError::Misuse("another tenant has a grant with this id"));
        }
        Ok(created)
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        Ok(match self.store.find(grant, token).await? {
            Lookup::Found(Found { grant, token }) => match self.grant_out(grant) {
                Some(grant) => Lookup::Found(Found { grant, token }),
                None => Lookup::Absent,
            },
            other => other,
        })
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        let id = step.grant;
        let change = match step.change {
            ChainUpdate::Move(next) => ChainUpdate::Move(Box::new(self.grant_in(*next)?)),
            ChainUpdate::Attach => ChainUpdate::Attach,
        };
        // Only its own tenant can read the grant and know the position of its chain, so a step that was
        // taken belongs to this tenant. The other answers are checked.
        match self.store.advance(Advance { change, ..step }).await {
            Ok(AdvanceOutcome::Stale(grant)) => {
                Ok(self.grant_out(grant).map_or(AdvanceOutcome::Unknown, AdvanceOutcome::Stale))
            }
            Ok(AdvanceOutcome::Dead) | Err(StoreError::Misuse(_)) if self.is_others(id).await? => {
                Ok(AdvanceOutcome::Unknown)
            }
            other => other,
        }
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        if let Target::Token { grant, .. } | Target::Grant(grant) = revocation.target
            && self.is_others(grant).await?
        {
            // For this tenant, the grant does not exist and never will.
            return Ok(RevokeOutcome::Done);
        }
        let client = revocation.client.as_ref().map_or("", ClientId::as_str);
        let client = Some(self.inward(client, ClientId::new)?);
        let target = self.target_in(revocation.target)?;
        self.store.revoke(Revocation { target, client, ..revocation }).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        let inward: Vec<RuleKey> =
            keys.iter().map(|key| self.rule_key_in(key)).collect::<Result<_, _>>()?;
        let Rules { rules, newest_bound } = self.store.rules(inward.clone()).await?;
        let own = |rule: Rule| {
            let asked = inward.iter().position(|key| *key == rule.key)?;
            Some(Rule { key: keys[asked].clone(), ..rule })
        };
        Ok(Rules { rules: rules.into_iter().filter_map(own).collect(), newest_bound })
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let listing = self.store.list(self.selector_in(&of)?, page, now).await?;
        let grants = listing.grants.into_iter().filter_map(|grant| self.grant_out(grant)).collect();
        Ok(Listing { grants, ..listing })
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        let mut after = after;
        loop {
            match self.store.revocations(after.clone(), limit).await? {
                RevocationBatch::Entries { entries, next, more, newest_bound } => {
                    let entries: Vec<LogEntry> =
                        entries.into_iter().filter_map(|entry| self.entry_out(entry)).collect();
                    // Entries of other tenants are skipped; a page without any of ours is not returned.
                    if entries.is_empty() && more && next != after {
                        after = next;
                        continue;
                    }
                    return Ok(RevocationBatch::Entries { entries, next, more, newest_bound });
                }
                RevocationBatch::Gap => return Ok(RevocationBatch::Gap),
            }
        }
    }

    fn wakeups(&self) -> LogNotifications {
        self.store.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.store.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.store.maintain(task).await
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        self.store.status(before).await
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        let Some(listing) = self.store.scan(page).await? else { return Ok(None) };
        // Nobody knows whose rows the unreadable ones are.
        let grants = listing.grants.into_iter().filter_map(|grant| self.grant_out(grant)).collect();
        Ok(Some(Listing { grants, ..listing }))
    }
}

#[async_trait]
impl<S: SingleUseStore + ?Sized> SingleUseStore for TenantStore<S> {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        // The tenant becomes the owner of the item, so that two tenants never collide.
        let (owner, value) = (&*self.name, &spend.id.as_bytes()[..]);
        let id = SingleUse { purpose: "tenant", owner, value }.id();
        self.store.spend(Spend { id, ..spend }).await
    }
}
