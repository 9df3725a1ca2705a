use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;
use cloakroom_memory::MemoryStore;
use tokio::task::yield_now;

use super::*;
use crate::{Context, Factory};

#[derive(Debug)]
struct Memory;

#[async_trait]
impl Factory for Memory {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(MemoryStore::new())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(MemoryStore::new())
    }
}

fn context() -> Context {
    Context::new(Arc::new(Memory))
}

/// Notes its letter, then yields, as often as there are letters.
async fn spell(letters: &str, noted: &Mutex<String>) {
    for (place, letter) in letters.chars().enumerate() {
        if place > 0 {
            yield_now().await;
        }
        noted.lock().unwrap().push(letter);
    }
}

#[tokio::test]
async fn every_order_with_one_pause_each_is_tried() {
    let mut orders = Interleavings::new(&context());
    let mut tried = HashSet::new();
    while orders.again() {
        let noted = Mutex::default();
        orders.play(spell("abc", &noted), spell("12", &noted)).await.unwrap();
        tried.insert(noted.into_inner().unwrap());
    }
    for order in ["abc12", "12abc", "a12bc", "ab12c", "a1bc2", "ab1c2", "1abc2"] {
        assert!(tried.contains(order), "{order} of {tried:?}");
    }
}

#[tokio::test]
async fn who_holds_a_lock_gets_to_let_it_go() {
    let lock = tokio::sync::Mutex::new(0);
    let work = async || {
        let mut held = lock.lock().await;
        yield_now().await;
        *held += 1;
        *held
    };
    let mut orders = Interleavings::new(&context());
    while orders.again() {
        let before = *lock.lock().await;
        let (one, two) = orders.play(work(), work()).await.unwrap();
        assert_eq!(one + two, 2 * before + 3);
    }
    let mut orders = Interleavings::new(&context());
    while orders.again() {
        orders.crash(work(), work()).await.unwrap();
    }
}

#[tokio::test]
async fn a_crash_comes_before_and_after_every_await() {
    let mut orders = Interleavings::new(&context());
    let mut tried = HashSet::new();
    while orders.again() {
        let noted = Mutex::default();
        orders.crash(spell("abc", &noted), spell("12", &noted)).await.unwrap();
        tried.insert(noted.into_inner().unwrap());
    }
    for order in ["12", "12a", "12ab", "12abc", "a12", "a12b", "a12bc", "ab12", "ab12c", "abc12"] {
        assert!(tried.contains(order), "{order} of {tried:?}");
    }
}

#[tokio::test]
async fn an_operation_is_dropped_at_every_await() {
    let mut drops = Drops::new(&context());
    let mut tried = Vec::new();
    while drops.again() {
        let noted = Mutex::default();
        let answer = drops.play(spell("abc", &noted)).await.unwrap();
        tried.push((noted.into_inner().unwrap(), answer.is_some()));
    }
    let should = [("", false), ("a", false), ("ab", false), ("abc", true)];
    assert_eq!(tried, should.map(|(noted, is_done)| (noted.to_owned(), is_done)));
}
