//! Identifiers are byte-exact: in every index, every rule and every entry of the log.

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{LogEvent, RuleKey, Target};
use cloakroom_core::store::{Selector, TokenStore, TokenStoreExt};
use cloakroom_core::{ClientId, GrantId, Jti, Kid, Random, Subject};

use crate::Context;
use crate::ask::{Ask, barred_and_dead, ensure, same};
use crate::fixtures::{NOW, grant, pair, subject};
use crate::report::Broken;

checks! { "contract::identifiers":
    subjects_are_indexed_byte_for_byte => IdentifiersExact,
    clients_are_indexed_byte_for_byte => IdentifiersExact,
    subjects_are_revoked_byte_for_byte => IdentifiersExact,
    clients_are_revoked_byte_for_byte => IdentifiersExact,
    a_user_is_no_client_of_the_same_spelling => IdentifiersExact,
    pairs_are_not_their_texts_put_together => IdentifiersExact,
    jtis_are_ruled_byte_for_byte => IdentifiersExact,
    kids_are_ruled_byte_for_byte => IdentifiersExact,
}

/// Texts that something between a caller and a disk may take for one another.
fn alike(longest: usize) -> Vec<String> {
    let mut texts: Vec<String> = [
        "alice", "Alice", "ALICE", "aLICE", " alice", "alice ", "alice  ", "alic", "alicee", " ",
        "  ", "%", "_", "alic_", "al%", "a*", "a?", "'", "''", "\"", "\\", "\\\\", "\\'", "`",
        "$1", ":a", "{}", "[a]", "(a)", "a;b", "a--b", "a,b", "a|b", "a/b", "a:b", "0", "00",
        "0.0", "1", "null", "NULL", "true", "u:alice", "c:alice", "+0", "-0", "1e0",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.extend(long(longest));
    texts
}

/// As long as they may be, alike but for the last byte, or but for their length.
fn long(longest: usize) -> [String; 4] {
    let shorter = "x".repeat(longest - 1);
    [shorter.clone() + "x", shorter.clone() + "y", shorter.clone() + "X", shorter]
}

/// More of the kind, in letters of the world.
fn alike_in_print(longest: usize) -> Vec<String> {
    let mut texts = alike(longest);
    texts.extend(
        [
            "é",
            "e\u{301}",
            "É",
            "e",
            "ß",
            "ss",
            "ẞ",
            "i",
            "ı",
            "İ",
            "I",
            "æ",
            "ae",
            "Ａ",
            "A",
            "ﬁ",
            "fi",
            "１",
            "½",
            "Ω",
            "\u{2126}",
            "a\u{a0}",
            "a\u{3000}",
            "🔑",
            "🔒",
            "𝐀",
            "\u{10ffff}",
            "\u{fffd}",
            "日本",
            "日夲",
            "ي",
            "ی",
        ]
        .map(str::to_owned),
    );
    // As many bytes: of four-byte letters, and three more.
    let keys = "🔑".repeat((longest - 3) / 4);
    texts.push(keys.clone() + "abc");
    texts.push(keys + "abd");
    texts
}

/// More of the kind, with characters that are not to be seen.
fn alike_in_any_way(longest: usize) -> Vec<String> {
    let mut texts = alike_in_print(longest);
    texts.extend(
        [
            "\0",
            "\0\0",
            "alice\0",
            "alice\0b",
            "alice\0c",
            "\0alice",
            "alice\n",
            "alice\r\n",
            "a\tb",
            "a b",
            "alice\u{200b}",
            "al\u{ad}ice",
            "\u{feff}alice",
            "\u{202e}alice",
            "alice\u{7f}",
            "\u{1}",
            "\u{2}",
            "\x1a",
            "\x1b[0m",
            "\u{85}",
            "\u{2028}",
        ]
        .map(str::to_owned),
    );
    texts
}

fn all_subjects(longest: usize) -> Result<Vec<Subject>, Broken> {
    let mut subjects = Vec::new();
    for text in alike_in_any_way(longest) {
        subjects.push(Subject::user(text)?);
    }
    for text in alike(longest) {
        subjects.push(Subject::client(text)?);
    }
    Ok(subjects)
}

fn all_clients(longest: usize) -> Result<Vec<ClientId>, Broken> {
    Ok(alike(longest).into_iter().map(ClientId::new).collect::<Result<_, _>>()?)
}

/// Grants of these subjects at "app".
async fn grants_of(
    store: &dyn TokenStore,
    subjects: &[Subject],
) -> Result<Vec<GrantRecord>, Broken> {
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for subject in subjects {
        let mut grant = grant("-", "app", epoch)?;
        grant.subject = subject.clone();
        store.inserted(&grant, &[]).await?;
        grants.push(grant);
    }
    Ok(grants)
}

/// Grants of "alice" at these clients.
async fn grants_at(
    store: &dyn TokenStore,
    clients: &[ClientId],
) -> Result<Vec<GrantRecord>, Broken> {
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for client in clients {
        let mut grant = grant("alice", "-", epoch)?;
        grant.client = client.clone();
        store.inserted(&grant, &[]).await?;
        grants.push(grant);
    }
    Ok(grants)
}

async fn selects(store: &dyn TokenStore, of: Selector, alone: GrantId) -> Result<(), Broken> {
    let listed = store.listed_ids(of.clone(), NOW).await?;
    same(&format!("the listing of {of:?}"), &listed, &vec![alone])
}

async fn subjects_are_indexed_byte_for_byte(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for grant in grants_of(&*store, &all_subjects(context.max_id_bytes())?).await? {
        same("the grant", &store.grant(grant.id).await?, &grant)?;
        selects(&*store, Selector::Subject(grant.subject.clone()), grant.id).await?;
        let of = Selector::SubjectAtClient(grant.subject, grant.client);
        selects(&*store, of, grant.id).await?;
    }
    Ok(())
}

async fn clients_are_indexed_byte_for_byte(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for grant in grants_at(&*store, &all_clients(context.max_id_bytes())?).await? {
        same("the grant", &store.grant(grant.id).await?, &grant)?;
        selects(&*store, Selector::Client(grant.client.clone()), grant.id).await?;
        let of = Selector::SubjectAtClient(grant.subject, grant.client);
        selects(&*store, of, grant.id).await?;
    }
    Ok(())
}

/// Revokes every second target, and looks whose grants, rules and entries there are then.
async fn revokes_alone(
    store: &dyn TokenStore,
    grants: Vec<(GrantRecord, Target, RuleKey)>,
) -> Result<(), Broken> {
    let is_revoked = |place: usize| place.is_multiple_of(2);
    for (place, (_, target, _)) in grants.iter().enumerate() {
        if is_revoked(place) {
            store.revoked(target.clone()).await?;
        }
    }
    for (place, (grant, target, key)) in grants.iter().enumerate() {
        let unrevoked = store.is_unrevoked(grant.id).await?;
        ensure!(
            unrevoked != is_revoked(place),
            "of texts that look alike every second was revoked; the grant of {target:?} {}",
            if unrevoked { "escaped" } else { "fell with another" }
        );
        let rule = store.rule(key.clone()).await?;
        ensure!(rule.is_some() == is_revoked(place), "the rule for {key:?} is {rule:?}");
        // One more of the same: the rule alone speaks for it.
        let mut again = grant.clone();
        again.id = GrantId::random(&Random::system())?;
        if is_revoked(place) {
            barred_and_dead(store, &again, &[]).await?;
        } else {
            store.inserted(&again, &[]).await?;
        }
    }
    let targets = grants.into_iter().map(|(_, target, _)| target);
    let revoked = targets.step_by(2).collect();
    logged_in_order(store, revoked).await
}

/// That the log's targets are these, each in its place.
async fn logged_in_order(store: &dyn TokenStore, targets: Vec<Target>) -> Result<(), Broken> {
    let log = store.log().await?;
    let logged: Vec<Target> = log
        .into_iter()
        .filter_map(|entry| match entry.event {
            LogEvent::Revoked { target, .. } => Some(target),
            _ => None,
        })
        .collect();
    // One that comes twice is no loss.
    for target in &targets {
        ensure!(logged.contains(target), "the log does not hold {target:?}");
    }
    for target in &logged {
        ensure!(targets.contains(target), "the log holds {target:?}, which nobody revoked");
    }
    Ok(())
}

async fn subjects_are_revoked_byte_for_byte(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grants = grants_of(&*store, &all_subjects(context.max_id_bytes())?).await?;
    let with_targets = grants.into_iter().map(|grant| {
        let subject = grant.subject.clone();
        (grant, Target::Subject(subject.clone()), RuleKey::Subject(subject))
    });
    revokes_alone(&*store, with_targets.collect()).await
}

async fn clients_are_revoked_byte_for_byte(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grants = grants_at(&*store, &all_clients(context.max_id_bytes())?).await?;
    let with_targets = grants.into_iter().map(|grant| {
        let client = grant.client.clone();
        (grant, Target::Client(client.clone()), RuleKey::Client(client))
    });
    revokes_alone(&*store, with_targets.collect()).await
}

async fn a_user_is_no_client_of_the_same_spelling(context: Context) -> Result<(), Broken> {
    for revoked in 0..2 {
        let store = context.tokens().await;
        let both = [Subject::user("alice")?, Subject::client("alice")?];
        let grants = grants_of(&*store, &both).await?;
        for grant in &grants {
            selects(&*store, Selector::Subject(grant.subject.clone()), grant.id).await?;
        }
        store.revoked(Target::Subject(both[revoked].clone())).await?;
        for (place, grant) in grants.iter().enumerate() {
            ensure!(
                store.is_unrevoked(grant.id).await? == (place != revoked),
                "{:?} was revoked; the grant of {:?} went the wrong way",
                both[revoked],
                grant.subject
            );
        }
    }
    Ok(())
}

async fn pairs_are_not_their_texts_put_together(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for between in ["", ":", " ", "|", "/", ",", "@", "#", "c:", "u:", "\\", "\"", "-"] {
        for (user, client) in
            [(format!("a{between}b"), "c".to_owned()), ("a".to_owned(), format!("b{between}c"))]
        {
            let grant = grant(&user, &client, epoch)?;
            store.inserted(&grant, &[]).await?;
            let (subject, client) = (grant.subject.clone(), grant.client.clone());
            let target = pair(&subject, &client);
            let of = Selector::SubjectAtClient(subject.clone(), client.clone());
            selects(&*store, of, grant.id).await?;
            grants.push((grant, target, RuleKey::SubjectAtClient(subject, client)));
        }
    }
    // Nor is the pair a subject or a client of such a text.
    for text in ["a:b", "a b", "a:c", "a"] {
        let rule = store.rule(RuleKey::Subject(subject(text)?)).await?;
        ensure!(rule.is_none(), "there is a rule {rule:?}");
    }
    revokes_alone(&*store, grants).await
}

async fn ruled_alone(store: &dyn TokenStore, all: Vec<(Target, RuleKey)>) -> Result<(), Broken> {
    for (target, _) in all.iter().step_by(2) {
        store.revoked(target.clone()).await?;
    }
    for (place, (_, key)) in all.iter().enumerate() {
        let rule = store.rule(key.clone()).await?;
        ensure!(
            rule.is_some() == place.is_multiple_of(2),
            "every second of some similar texts has a rule, but the rule for {key:?} is {rule:?}"
        );
    }
    let revoked = all.into_iter().step_by(2).map(|(target, _)| target);
    logged_in_order(store, revoked.collect()).await
}

async fn jtis_are_ruled_byte_for_byte(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut all = Vec::new();
    for text in alike_in_any_way(context.max_id_bytes()) {
        let jti = Jti::new(text)?;
        all.push((Target::Jti(jti.clone()), RuleKey::Jti(jti)));
    }
    ruled_alone(&*store, all).await
}

async fn kids_are_ruled_byte_for_byte(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut all = Vec::new();
    for text in alike_in_print(context.max_id_bytes()) {
        let kid = Kid::new(text)?;
        all.push((Target::Key(kid.clone()), RuleKey::Key(kid)));
    }
    ruled_alone(&*store, all).await
}
