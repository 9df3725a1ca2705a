//! That the plain store is right must not rest on the kit alone: here it walks beside the memory
//! store, through operations drawn at random, and answers alike.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{Chain, ChainKey, ChainPosition, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, Epoch, LogEvent, Revocation, RevocationBatch, RuleKey, Target,
};
use cloakroom_core::store::{
    Advance, ChainUpdate, Housekeeping, PageRequest, Selector, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{
    Audience, ClientId, GrantId, Jti, Random, Scope, Subject, TokenDigest, TokenKind,
};
use cloakroom_memory::MemoryStore;

use super::plain::{Manners, Plain};

const START: UnixTime = UnixTime::from_secs(3_000_000_000);
const STEPS: u64 = 400;
/// How many digests there are.
const DIGESTS: u8 = 4;

/// Numbers that look random, and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn byte(&mut self, sides: u64) -> u8 {
        self.roll(sides).to_le_bytes()[0]
    }

    fn subject(&mut self) -> Subject {
        Subject::user(["alice", "Alice"][self.roll(2) as usize]).expect("a subject")
    }

    fn client(&mut self) -> ClientId {
        ClientId::new(["app", "app "][self.roll(2) as usize]).expect("a client")
    }

    fn id(&mut self) -> GrantId {
        GrantId::from_bytes([self.byte(12); 16])
    }

    fn digest(&mut self) -> TokenDigest {
        TokenDigest::from_bytes([self.byte(DIGESTS.into()); 32])
    }

    fn soon(&mut self, now: UnixTime) -> UnixTime {
        now + Duration::from_secs(self.roll(60))
    }

    fn grant(&mut self, now: UnixTime, epoch: Epoch) -> GrantRecord {
        let expires_at = self.soon(now) + Duration::from_secs(20);
        let mut grant = GrantRecord::new(
            self.id(),
            self.client(),
            self.subject(),
            Audience::one("https://api.example").expect("an audience"),
            now,
            expires_at,
        );
        grant.scope = Scope::parse("read").expect("a scope");
        grant.epoch = epoch;
        let key = ChainKey::random(&Random::system()).expect("random bytes");
        grant.chain = Some(Chain::new(TokenKind::Refresh, self.digest(), key, self.soon(now)));
        grant.row_expires_at = expires_at + Duration::from_secs(10);
        grant
    }

    fn tokens(&mut self, grant: &GrantRecord) -> Vec<TokenRecord> {
        if self.roll(2) == 0 {
            return Vec::new();
        }
        let expires_at = self.soon(grant.created_at).min(grant.expires_at);
        vec![TokenRecord::new(self.digest(), grant, START, expires_at)]
    }

    fn target(&mut self) -> Target {
        match self.roll(9) {
            0 => Target::Subject(self.subject()),
            1 => Target::Client(self.client()),
            2 => Target::SubjectAtClient(self.subject(), self.client()),
            3 => Target::Jti(Jti::new("one").expect("a jti")),
            4 | 5 => Target::Token { grant: self.id(), digest: self.digest() },
            _ => Target::Grant(self.id()),
        }
    }

    fn selector(&mut self) -> Selector {
        match self.roll(3) {
            0 => Selector::Subject(self.subject()),
            1 => Selector::Client(self.client()),
            _ => Selector::SubjectAtClient(self.subject(), self.client()),
        }
    }
}

/// What a store answered; errors as text.
fn said(answer: impl std::fmt::Debug) -> String {
    format!("{answer:?}")
}

fn told(batch: RevocationBatch) -> Vec<LogEvent> {
    match batch {
        RevocationBatch::Entries { entries, .. } => {
            entries.into_iter().map(|entry| entry.event).collect()
        }
        RevocationBatch::Gap => Vec::new(),
    }
}

async fn answers(stores: &[Arc<dyn TokenStore>; 2], asked: &Asked) -> [String; 2] {
    [answer(&*stores[0], asked).await, answer(&*stores[1], asked).await]
}

#[derive(Debug, Clone)]
enum Asked {
    Create(Box<GrantRecord>, Vec<TokenRecord>),
    Find(GrantId),
    Advance(Advance),
    Revoke(Revocation),
    Rules(Vec<RuleKey>),
    List(Selector, u32, UnixTime),
    Log,
    Maintain(Housekeeping),
}

async fn answer(store: &dyn TokenStore, asked: &Asked) -> String {
    match asked.clone() {
        Asked::Create(grant, tokens) => said(store.create(*grant, tokens).await),
        Asked::Find(grant) => {
            let mut found = Vec::new();
            for byte in 0..DIGESTS {
                let digest = TokenDigest::from_bytes([byte; 32]);
                found.push(store.find(grant, Some(digest)).await.expect("it answers"));
            }
            said(found)
        }
        Asked::Advance(step) => said(store.advance(step).await),
        Asked::Revoke(revocation) => said(store.revoke(revocation).await),
        Asked::Rules(keys) => {
            let mut answer = store.rules(keys).await.expect("the rules");
            answer.rules.sort_by(|a, b| a.key.cmp(&b.key));
            said(answer)
        }
        Asked::List(of, limit, now) => {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = PageRequest { after, limit };
                let listing = store.list(of.clone(), page, now).await.expect("a page");
                all.extend(listing.grants.iter().map(|grant| grant.id));
                after = listing.next;
                if after.is_none() {
                    return said(all);
                }
            }
        }
        Asked::Log => said(told(store.revocations(Cursor::start(), 1_000).await.expect("the log"))),
        Asked::Maintain(task) => loop {
            let done = store.maintain(task).await.expect("it is done");
            if !done.more {
                return said(done.more);
            }
        },
    }
}

async fn ask(dice: &mut Dice, store: &dyn TokenStore, now: UnixTime) -> Asked {
    match dice.roll(10) {
        0..3 => {
            let newest = store.rules(Vec::new()).await.expect("a bound").newest_bound;
            // Now and then one that no revocation of this walk covers.
            let far = if dice.roll(5) == 0 { STEPS * 2_000 } else { 0 };
            let epoch = Epoch::new(newest.get() + dice.roll(3) + far - 1);
            let grant = dice.grant(now, epoch);
            let tokens = dice.tokens(&grant);
            Asked::Create(Box::new(grant), tokens)
        }
        3 => Asked::Find(dice.id()),
        4 | 5 => {
            let id = dice.id();
            let mut next = match store.find(id, None).await.expect("it answers") {
                cloakroom_core::store::Lookup::Found(found) => GrantRecord::clone(&found.grant),
                _ => dice.grant(now, Epoch::new(1)),
            };
            next.id = id;
            next.revoked_at = None;
            let tokens = dice.tokens(&next);
            let chain = next.chain.as_mut().expect("a chain");
            let expected = ChainPosition {
                generation: chain.generation.saturating_sub(u32::from(dice.byte(5) == 0)),
                ..chain.position()
            };
            chain.generation += 1;
            chain.digest = dice.digest();
            chain.expires_at = dice.soon(now);
            let change = match dice.roll(3) {
                0 => ChainUpdate::Attach,
                _ => ChainUpdate::Move(Box::new(next)),
            };
            Asked::Advance(Advance { grant: id, expected, now, change, tokens })
        }
        6 => Asked::Revoke(Revocation::new(dice.target(), now, dice.soon(now))),
        7 => Asked::List(dice.selector(), 1 + dice.roll(3) as u32, now),
        8 => Asked::Rules(vec![
            RuleKey::Subject(dice.subject()),
            RuleKey::Client(dice.client()),
            RuleKey::Jti(Jti::new("one").expect("a jti")),
        ]),
        _ if dice.roll(3) == 0 => Asked::Maintain(Housekeeping {
            now,
            before: now - Duration::from_secs(dice.roll(60)),
            limit: 1 + dice.roll(9) as u32,
            sweep: None,
        }),
        _ => Asked::Log,
    }
}

#[tokio::test]
async fn it_answers_as_the_memory_store_does() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let stores: [Arc<dyn TokenStore>; 2] =
            [Arc::new(MemoryStore::new()), Arc::new(Plain::new(None, Manners::default()))];
        // From here on their bounds are the same.
        let first = Asked::Revoke(Revocation::new(
            Target::Subject(Subject::user("nobody").expect("a subject")),
            START,
            START,
        ));
        answers(&stores, &first).await;
        for step in 0..STEPS {
            let now = START + Duration::from_secs(step);
            let asked = ask(&mut dice, &*stores[0], now).await;
            let [memory, plain] = answers(&stores, &asked).await;
            let same = match (&asked, memory == plain) {
                (_, same) if same => true,
                // A grant that came too late is revoked at a time of the store's choice.
                (Asked::Find(_) | Asked::Advance(_), _) => {
                    memory.contains("revoked_at: Some") && plain.contains("revoked_at: Some")
                }
                _ => false,
            };
            assert!(same, "seed {seed}, step {step}: {asked:#?}\n{memory}\n{plain}");
        }
    }
}
