//! What must not be found in freed memory.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::allocator::Recording;

/// The fewest bytes in a row by which a secret is recognized: part of one is a leak, too.
const FRAGMENT: usize = 8;

/// The secrets of one test, by name. They are copies, kept until the search is over.
#[derive(Default)]
pub(crate) struct Secrets(Vec<(&'static str, Vec<u8>)>);

impl Secrets {
    /// Adds a secret, or that part of one that nobody else may know.
    pub(crate) fn add(&mut self, name: &'static str, secret: impl Into<Vec<u8>>) {
        let secret = secret.into();
        assert!(secret.len() >= FRAGMENT, "{name} is too short to be told from chance");
        self.0.push((name, secret));
    }

    /// Adds a token: of a handle, as text and decoded, all but what says its grant and generation;
    /// of a JWT the signature, as text. Its claims are good for nothing without.
    pub(crate) fn add_token(&mut self, name: &'static str, token: &str) {
        // Groups of four characters, or the rest could not be decoded by itself.
        let public = match token.get(..6) {
            Some("cr_at_") => 6 + 24,
            Some("cr_rt_" | "cr_ac_") => 6 + 32,
            _ => {
                let signature = token.rsplit('.').next().expect("the last segment");
                return self.add(name, signature);
            }
        };
        let secret = &token[public..];
        self.add(name, secret);
        self.add(name, URL_SAFE_NO_PAD.decode(secret).expect("base64url"));
    }

    /// Which of them the freed blocks hold, and what the block looks like.
    fn found_in(&self, blocks: &[Box<[u8]>]) -> Vec<String> {
        let mut fragments: Vec<(&[u8], &str)> = self
            .0
            .iter()
            .flat_map(|(name, secret)| secret.windows(FRAGMENT).map(|part| (part, *name)))
            .collect();
        fragments.sort_unstable();
        let name_of = |(offset, part): (usize, &[u8])| {
            let at = fragments.binary_search_by(|(own, _)| (*own).cmp(part)).ok()?;
            Some((fragments[at].1, offset))
        };
        let mut found = Vec::new();
        for block in blocks {
            let parts: Vec<_> = block.windows(FRAGMENT).enumerate().filter_map(name_of).collect();
            if let (Some((name, first)), Some((_, last))) = (parts.first(), parts.last()) {
                found.push(format!(
                    "{name}, in bytes {first} to {} of {}: {:?}",
                    last + FRAGMENT,
                    block.len(),
                    String::from_utf8_lossy(block).trim_end_matches('\0')
                ));
            }
        }
        found
    }
}

/// Runs `run`, which adds its secrets, and says where freed memory still held one.
pub(crate) fn left_behind(run: impl FnOnce(&mut Secrets)) -> Vec<String> {
    // Dropped last: the copies in `secrets` are freed before another test records.
    let recording = Recording::start();
    let mut secrets = Secrets::default();
    run(&mut secrets);
    let freed = recording.end();
    assert!(!secrets.0.is_empty(), "a test without secrets finds none");
    secrets.found_in(&freed)
}

/// Asserts that nothing that `run` freed held one of its secrets.
#[track_caller]
pub(crate) fn assert_wiped(run: impl FnOnce(&mut Secrets)) {
    let found = left_behind(run);
    assert!(found.is_empty(), "freed memory still held\n  {}", found.join("\n  "));
}

/// Runs a future as a task of its own, as a server would: what it holds between two steps is on the
/// heap.
pub(crate) fn in_a_task<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async { tokio::spawn(future).await.expect("no panic") })
}
