//! Check values of token stores and key stores.

use std::sync::Arc;

use cloakroom_core::revocation::Target;
use cloakroom_core::store::{CheckValue, CheckValues};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, NOW, subject};
use crate::pace::{Interleavings, at_once};
use crate::report::Broken;

checks! { "contract::check_values":
    a_new_store_has_no_values => ValuesExact,
    values_come_back_ordered_by_name => ValuesExact,
    names_are_compared_byte_by_byte => ValuesExact,
    the_longest_names_and_values_survive => ValuesExact,
    some_hundred_values_survive => ValuesExact,
    a_value_changes_only_from_what_was_expected => ValuesCompareAndSet,
    a_value_that_stands_there_already_is_done => ValuesCompareAndSet,
    a_value_is_removed => ValuesCompareAndSet,
    an_empty_value_is_a_value => ValuesCompareAndSet,
    of_two_that_set_a_value_one_does => ValuesCompareAndSet,
    of_many_that_set_a_value_one_does => ValuesCompareAndSet,
    values_survive_housekeeping => ValuesSurvive,
}

/// Both stores in turn: each holds values of its own.
macro_rules! of_both {
    ($context:ident, $check:ident) => {{
        $check(&*$context.tokens().await).await?;
        $check(&*$context.keys().await).await
    }};
}

pub(crate) async fn set<S: CheckValues + ?Sized>(
    store: &S,
    name: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<(), Broken> {
    let is_done = store.set_check_value(name, expected, value).await?;
    ensure!(is_done, "{name:?} was not changed from {expected:?} to {value:?}");
    Ok(())
}

async fn is_refused<S: CheckValues + ?Sized>(
    store: &S,
    name: &str,
    expected: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<(), Broken> {
    let before = store.check_values().await?;
    let is_done = store.set_check_value(name, expected, value).await?;
    ensure!(!is_done, "{name:?} was changed from {expected:?}, which did not stand there");
    same("the values after a refusal", &store.check_values().await?, &before)
}

pub(crate) async fn stand<S: CheckValues + ?Sized>(
    store: &S,
    values: &[(&str, &[u8])],
) -> Result<(), Broken> {
    let value =
        |(name, value): &(&str, &[u8])| CheckValue { name: (*name).into(), value: value.to_vec() };
    let should: Vec<_> = values.iter().map(value).collect();
    same("the check values", &store.check_values().await?, &should)
}

async fn a_new_store_has_no_values(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        stand(store, &[]).await
    }
    of_both!(context, check)
}

async fn values_come_back_ordered_by_name(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        for name in ["b", "a", "a.b", "a b", "B", "~", "aa"] {
            set(store, name, None, Some(name.as_bytes())).await?;
        }
        let names = ["B", "a", "a b", "a.b", "aa", "b", "~"];
        stand(store, &names.map(|name| (name, name.as_bytes()))).await
    }
    of_both!(context, check)
}

async fn names_are_compared_byte_by_byte(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        let names = ["Issuer", "Issuer ", "issuer", "issuer-", "issuer_", "issuer~"];
        for (place, name) in names.iter().enumerate() {
            set(store, name, None, Some(&[u8::try_from(place)?])).await?;
        }
        let should = [0_u8, 1, 2, 3, 4, 5].map(|place| vec![place]);
        let should: Vec<_> = names.into_iter().zip(should.iter().map(Vec::as_slice)).collect();
        stand(store, &should).await?;
        // One goes, the others stay.
        set(store, "Issuer", Some(&[0]), None).await?;
        stand(store, &should[1..]).await
    }
    of_both!(context, check)
}

async fn the_longest_names_and_values_survive(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S, longest: usize) -> Result<(), Broken> {
        // They differ in their last byte, and the values in theirs.
        let names = ["x", "y", "z"].map(|end| format!("{}{end}", "n".repeat(longest - 1)));
        let value = |end: u8| {
            let mut value: Vec<u8> =
                (0..CheckValue::MAX_VALUE_BYTES).map(|at| at.to_le_bytes()[0]).collect();
            value[CheckValue::MAX_VALUE_BYTES - 1] = end;
            value
        };
        let values = [value(0), value(1), value(0xff)];
        for (name, value) in names.iter().zip(&values) {
            set(store, name, None, Some(value)).await?;
        }
        let pairs = names.iter().map(String::as_str).zip(values.iter().map(Vec::as_slice));
        stand(store, &pairs.collect::<Vec<_>>()).await?;
        is_refused(store, &names[0], Some(&value(7)), Some(b"other")).await?;
        set(store, &names[0], Some(&value(0)), Some(b"other")).await
    }
    check(&*context.tokens().await, context.max_name_bytes()).await?;
    check(&*context.keys().await, context.max_name_bytes()).await
}

async fn some_hundred_values_survive(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        let names: Vec<_> = (0..600).map(|number| format!("secret-{number:04}")).collect();
        for name in names.iter().rev() {
            set(store, name, None, Some(name.as_bytes())).await?;
        }
        let should: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
        stand(store, &should).await
    }
    of_both!(context, check)
}

async fn a_value_changes_only_from_what_was_expected(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        is_refused(store, "issuer", Some(b"one"), Some(b"two")).await?;
        is_refused(store, "issuer", Some(b""), Some(b"two")).await?;
        is_refused(store, "issuer", Some(b"one"), Some(b"")).await?;
        set(store, "issuer", None, Some(b"one")).await?;
        set(store, "other", None, Some(b"one")).await?;
        for expected in [None, Some(&b""[..]), Some(b"on"), Some(b"one "), Some(b"One")] {
            is_refused(store, "issuer", expected, Some(b"two")).await?;
            is_refused(store, "issuer", expected, None).await?;
        }
        set(store, "issuer", Some(b"one"), Some(b"two")).await?;
        is_refused(store, "issuer", Some(b"one"), Some(b"three")).await?;
        stand(store, &[("issuer", b"two"), ("other", b"one")]).await
    }
    of_both!(context, check)
}

async fn a_value_that_stands_there_already_is_done(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        // Sent again, and by a node that knew what stood there before.
        for expected in [None, None, Some(&b"one"[..]), Some(b"zero")] {
            set(store, "issuer", expected, Some(b"one")).await?;
        }
        stand(store, &[("issuer", b"one")]).await?;
        for expected in [Some(&b"one"[..]), Some(b"one"), None] {
            set(store, "issuer", expected, None).await?;
        }
        stand(store, &[]).await
    }
    of_both!(context, check)
}

async fn a_value_is_removed(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        for _ in 0..2 {
            set(store, "issuer", None, Some(b"one")).await?;
            is_refused(store, "issuer", Some(b"two"), None).await?;
            set(store, "issuer", Some(b"one"), None).await?;
            stand(store, &[]).await?;
            is_refused(store, "issuer", Some(b"one"), Some(b"two")).await?;
        }
        Ok(())
    }
    of_both!(context, check)
}

async fn an_empty_value_is_a_value(context: Context) -> Result<(), Broken> {
    async fn check<S: CheckValues + ?Sized>(store: &S) -> Result<(), Broken> {
        set(store, "issuer", None, Some(b"")).await?;
        stand(store, &[("issuer", b"")]).await?;
        is_refused(store, "issuer", None, Some(b"one")).await?;
        set(store, "issuer", Some(b""), Some(b"\0")).await?;
        stand(store, &[("issuer", b"\0")]).await
    }
    of_both!(context, check)
}

async fn of_two_that_set_a_value_one_does(context: Context) -> Result<(), Broken> {
    let (tokens, keys) = (context.tokens().await, context.keys().await);
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let name = format!("issuer-{}", orders.round());
        let set = |value: &'static [u8]| tokens.set_check_value(&name, None, Some(value));
        let (one, two) = orders.play(set(b"one"), set(b"two")).await?;
        one_is_there(&*tokens, &name, &[one?, two?], &[b"one", b"two"]).await?;
    }
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let name = format!("issuer-{}", orders.round());
        let set = |value: &'static [u8]| keys.set_check_value(&name, None, Some(value));
        let (one, two) = orders.play(set(b"one"), set(b"two")).await?;
        one_is_there(&*keys, &name, &[one?, two?], &[b"one", b"two"]).await?;
    }
    Ok(())
}

pub(crate) async fn one_is_there<S: CheckValues + ?Sized>(
    store: &S,
    name: &str,
    done: &[bool],
    values: &[&[u8]],
) -> Result<(), Broken> {
    let won: Vec<_> = values.iter().zip(done).filter(|(_, done)| **done).collect();
    let [(winner, _)] = won[..] else {
        return Err(format!("{} raced to set {name:?}, and {} did", done.len(), won.len()).into());
    };
    let all = store.check_values().await?;
    let stands = all.iter().find(|value| value.name == name).map(|value| &value.value[..]);
    same("what stands there", &stands, &Some(winner))
}

async fn of_many_that_set_a_value_one_does(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for round in 0..10 {
        let name = format!("issuer-{round}");
        let done = at_once(16, |task: usize| {
            let (store, name) = (Arc::clone(&store), name.clone());
            async move {
                let value = task.to_string();
                Ok(store.set_check_value(&name, None, Some(value.as_bytes())).await?)
            }
        });
        let values: Vec<_> = (0..16).map(|task: usize| task.to_string()).collect();
        let values: Vec<_> = values.iter().map(String::as_bytes).collect();
        one_is_there(&*store, &name, &done.await?, &values).await?;
    }
    Ok(())
}

async fn values_survive_housekeeping(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    set(&*store, "issuer", None, Some(b"one")).await?;
    store.revoked(Target::Subject(subject("alice")?)).await?;
    for days in [1, 365, 100_000] {
        store.housekept(NOW + days * DAY).await?;
        stand(&*store, &[("issuer", b"one")]).await?;
    }
    is_refused(&*store, "issuer", None, Some(b"two")).await
}
