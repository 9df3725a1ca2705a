//! True time, and what nodes whose clocks are a little off can know of it.
//!
//! The clocks of two nodes differ by at most [`SKEW`], so that around every end there is a moment at
//! which either answer is right: `Maybe`.

/// Milliseconds since the story began, by the one true clock.
pub(super) type Millis = i64;

pub(super) const SKEW: Millis = 5_000;
pub(super) const ACCESS: Millis = 600_000;
pub(super) const CODE: Millis = 60_000;
pub(super) const IDLE: Millis = 86_400_000;
pub(super) const GRANT: Millis = 3 * IDLE;
/// The retry window of a client that needs nothing but the token.
pub(super) const WINDOW: Millis = 30_000;
/// That of every other client.
pub(super) const LONG_WINDOW: Millis = 1_200_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sure {
    No,
    Maybe,
    Yes,
}

/// A request reads the clock when it begins, and may be held up before it reads the store.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) asked: Millis,
    pub(super) now: Millis,
}

impl Moment {
    /// A request that is not held up.
    pub(super) const fn at(now: Millis) -> Self {
        Self { asked: now, now }
    }

    /// Whether something that began at `since` and lives for `life` is still alive.
    pub(super) fn within(self, since: Millis, life: Millis) -> Sure {
        let at = |time: Millis| match time - since {
            age if age + SKEW < life => Sure::Yes,
            age if age - SKEW >= life => Sure::No,
            _ => Sure::Maybe,
        };
        if at(self.asked) == at(self.now) { at(self.now) } else { Sure::Maybe }
    }
}
