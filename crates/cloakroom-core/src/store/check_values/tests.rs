use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::*;

/// A store whose value is this at each look, and that takes a value only where none stands.
#[derive(Debug)]
struct Script(Mutex<VecDeque<Option<&'static [u8]>>>);

impl Script {
    fn new(looks: &[Option<&'static [u8]>]) -> Self {
        Self(Mutex::new(looks.iter().copied().collect()))
    }

    fn next(&self) -> Option<&'static [u8]> {
        self.0.lock().unwrap().pop_front().flatten()
    }
}

#[async_trait]
impl CheckValues for Script {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        let value =
            |name: &str, value: &[u8]| CheckValue { name: name.into(), value: value.into() };
        let own = self.next().map(|own| value("own", own));
        Ok([value("other", b"other")].into_iter().chain(own).collect())
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        assert_eq!((name, expected, value), ("own", None, Some(&b"new"[..])));
        Ok(self.next().is_none())
    }
}

/// What a future that never waits comes to.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn a_claim_is_done_or_says_what_stands_there() {
    let claim = |looks: &[Option<&'static [u8]>]| ready(Script::new(looks).claim("own", b"new"));
    assert_eq!(claim(&[None]).unwrap(), None, "it was free");
    assert_eq!(claim(&[Some(b"new"), Some(b"new")]).unwrap(), None, "it stands there already");
    assert_eq!(claim(&[Some(b"old"), Some(b"old")]).unwrap(), Some(b"old".to_vec()));
    // Taken away between the attempt and the look: once more.
    assert_eq!(claim(&[Some(b"old"), None, None]).unwrap(), None);
    assert_eq!(claim(&[Some(b"old"), None, Some(b"x"), Some(b"x")]).unwrap(), Some(b"x".to_vec()));
    // Again and again: an error, and no endless loop.
    let restless = [Some(&b"old"[..]), None].repeat(MAX_RACES);
    assert!(matches!(claim(&restless), Err(StoreError::Unavailable { .. })));
    let last = [[Some(&b"old"[..]), None].repeat(MAX_RACES - 1), vec![None]].concat();
    assert_eq!(claim(&last).unwrap(), None);
}
