//! The rules of each client, in the order of their ends.

use std::collections::BTreeSet;

use cloakroom_core::ClientId;
use cloakroom_core::time::UnixTime;
use hashbrown::HashMap;

use super::rule_index::RuleSlot;

/// The rules of each client, by their ends.
#[derive(Debug, Default)]
pub(super) struct ClientRules {
    queues: HashMap<ClientId, BTreeSet<(UnixTime, RuleSlot)>>,
    by_len: BTreeSet<(usize, ClientId)>,
}

impl ClientRules {
    /// The same identifier, in the memory of a rule that is held: each entry of the log brings a
    /// copy of its own.
    pub(super) fn shared(&self, client: ClientId) -> ClientId {
        self.queues.get_key_value(&client).map_or(client, |(held, _)| held.clone())
    }

    pub(super) fn insert(&mut self, client: &ClientId, until: UnixTime, place: RuleSlot) {
        let queue = self.queues.entry(client.clone()).or_default();
        self.by_len.remove(&(queue.len(), client.clone()));
        queue.insert((until, place));
        self.by_len.insert((queue.len(), client.clone()));
    }

    pub(super) fn remove(&mut self, client: &ClientId, until: UnixTime, place: RuleSlot) {
        let Some(queue) = self.queues.get_mut(client) else { return };
        self.by_len.remove(&(queue.len(), client.clone()));
        queue.remove(&(until, place));
        if queue.is_empty() {
            self.queues.remove(client);
        } else {
            self.by_len.insert((queue.len(), client.clone()));
        }
    }

    /// The client that has the most rules, and the one of them that ends first. No client that has
    /// only one: a mark in its place would not be smaller.
    pub(super) fn longest(&self) -> Option<(ClientId, RuleSlot)> {
        let (_, client) = self.by_len.last().filter(|(len, _)| *len > 1)?;
        let (_, place) = self.queues.get(client)?.first()?;
        Some((client.clone(), *place))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.by_len.is_empty()
    }
}
