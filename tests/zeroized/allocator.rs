//! An allocator that keeps a copy of every block that is freed.
//!
//! It sees the heap of Rust code: not the stack, and not what C code allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static ALLOCATOR: Keeping = Keeping;

static RECORDER: Mutex<()> = Mutex::new(());
static RECORDING: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether this thread is keeping a block. Blocks that it allocates and frees in the meantime are not kept.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// What is freed from its start to its end, by whatever thread. As long as it lives, no other one
/// can start.
pub(crate) struct Recording {
    _only: MutexGuard<'static, ()>,
}

impl Recording {
    pub(crate) fn start() -> Self {
        let only = locked(&RECORDER);
        locked(&KEPT).clear();
        RECORDING.store(true, Ordering::SeqCst);
        Self { _only: only }
    }

    /// Ends it, and returns what every block held that was freed.
    pub(crate) fn end(&self) -> Vec<Box<[u8]>> {
        RECORDING.store(false, Ordering::SeqCst);
        std::mem::take(&mut *locked(&KEPT))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDING.store(false, Ordering::SeqCst);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keep(block: &[u8]) {
    if RECORDING.load(Ordering::SeqCst) && !BUSY.replace(true) {
        locked(&KEPT).push(block.into());
        BUSY.set(false);
    }
}

struct Keeping;

// `realloc` is the provided one: a new block, and the old one freed. A buffer that grows leaves its
// content behind wherever it happens to grow, and so it does here, each time.
//
// SAFETY: every block comes from the system's allocator and goes back there, with its own layout.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Keeping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeroed, so that what a block holds was put there by its owner, and all of it can be read.
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block that was allocated, zeroed, with this layout.
        keep(unsafe { std::slice::from_raw_parts(block, layout.size()) });
        // SAFETY: as above; nobody refers to it any more.
        unsafe { System.dealloc(block, layout) }
    }
}
