//! Curve arithmetic over the cores, and never on more threads than there are cores, whoever calls and from wherever.
//!
//! A call waits for one core and computes on its own thread, piece by piece. Cores that are free, or become free meanwhile,
//! take pieces too, each on a thread of its own; they are given up after a piece when another call waits for its
//! first. So several calls at once share the cores instead of all using all of them, none waits longer than for a
//! piece, and a core that is slow, because something else runs on it, gets fewer pieces. A call made from inside a
//! piece computes right there. Threads end with their call: starting one costs some 30 µs, and borrowed data stays possible.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::{panic, thread};

/// More pieces than cores, so that cores of unequal speed end at the same time.
const PIECES_A_CORE: usize = 4;

/// The cores of this machine.
static CORES: LazyLock<Cores> =
    LazyLock::new(|| Cores::new(thread::available_parallelism().map_or(1, NonZero::get)));

thread_local! {
    /// Whether this thread computes a piece, and so has a core already.
    static HAS_CORE: Cell<bool> = const { Cell::new(false) };
}

/// Maps pieces of `items`, each of at least `min` items (but for the last), on at most as many threads as there are cores;
/// keeps the order. Blocks the calling thread: keep it off async threads.
///
/// # Panics
/// If `map` does.
pub fn map_pieces<T: Send, R: Send>(
    items: Vec<T>,
    min: usize,
    map: impl Fn(Vec<T>) -> Vec<R> + Sync,
) -> Vec<R> {
    on(&CORES, items, min, map)
}

fn on<T: Send, R: Send>(
    cores: &Cores,
    items: Vec<T>,
    min: usize,
    map: impl Fn(Vec<T>) -> Vec<R> + Sync,
) -> Vec<R> {
    if items.is_empty() || HAS_CORE.get() {
        return map(items);
    }
    let most = if cores.all == 1 { 1 } else { PIECES_A_CORE * cores.all };
    let size = items.len().div_ceil(most).max(min).max(1);
    let work = Work::new(items, size, map);
    thread::scope(|scope| {
        let work = &work;
        let mut helpers = Vec::new();
        let mut results = cores.wait().compute(|| {
            let mut results = Vec::new();
            while let Some(piece) = work.next() {
                // (This thread takes the rest itself: no helper for the last piece.)
                for core in cores.more(work.left()) {
                    helpers.push(scope.spawn(move || core.compute(|| work.help(cores))));
                }
                results.push(work.done(piece));
            }
            results
        });
        for helper in helpers {
            results.extend(helper.join().unwrap_or_else(|reason| panic::resume_unwind(reason)));
        }
        results.sort_unstable_by_key(|(number, _)| *number);
        results.into_iter().flat_map(|(_, result)| result).collect()
    })
}

/// A piece or its result, by number.
type Numbered<T> = (usize, Vec<T>);

/// The pieces that nobody has taken yet, last one first, and what is to be done with them.
struct Work<T, F> {
    pieces: Mutex<Vec<Numbered<T>>>,
    map: F,
}

impl<T, R, F: Fn(Vec<T>) -> Vec<R>> Work<T, F> {
    fn new(items: Vec<T>, size: usize, map: F) -> Self {
        let number = items.len().div_ceil(size);
        let mut items = items.into_iter();
        let mut pieces: Vec<Numbered<T>> =
            (0..number).map(|number| (number, items.by_ref().take(size).collect())).collect();
        pieces.reverse();
        Self { pieces: Mutex::new(pieces), map }
    }

    fn pieces(&self) -> MutexGuard<'_, Vec<Numbered<T>>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Numbered<T>> {
        self.pieces().pop()
    }

    fn left(&self) -> usize {
        self.pieces().len()
    }

    fn done(&self, (number, piece): Numbered<T>) -> Numbered<R> {
        (number, (self.map)(piece))
    }

    /// Until there is nothing left, or somebody has no core at all.
    fn help(&self, cores: &Cores) -> Vec<Numbered<R>> {
        let mut results = Vec::new();
        while let Some(piece) = self.next() {
            results.push(self.done(piece));
            if cores.state().waiting > 0 {
                break;
            }
        }
        results
    }
}

struct Cores {
    all: usize,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    free: usize,
    /// Calls without any core.
    waiting: usize,
}

impl Cores {
    fn new(all: usize) -> Self {
        Self { all, state: Mutex::new(State { free: all, waiting: 0 }), freed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a core.
    fn wait(&self) -> Core<'_> {
        let mut state = self.state();
        state.waiting += 1;
        let state = self.freed.wait_while(state, |state| state.free == 0);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.free -= 1;
        Core(self)
    }

    /// Up to that many of the cores that nobody uses or waits for.
    fn more(&self, wanted: usize) -> Vec<Core<'_>> {
        let mut state = self.state();
        let taken = if state.waiting > 0 { 0 } else { wanted.min(state.free) };
        state.free -= taken;
        (0..taken).map(|_| Core(self)).collect()
    }
}

/// The right to compute on one core. Given back when dropped, whether its pieces ended well or not.
struct Core<'a>(&'a Cores);

impl Core<'_> {
    fn compute<R>(self, compute: impl FnOnce() -> R) -> R {
        /// Takes the mark away again, even if `compute` panics.
        struct Mark;
        impl Drop for Mark {
            fn drop(&mut self) {
                HAS_CORE.set(false);
            }
        }
        HAS_CORE.set(true);
        let _mark = Mark;
        compute()
    }
}

impl Drop for Core<'_> {
    fn drop(&mut self) {
        self.0.state().free += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn keeps_the_order() {
        for cores in [1, 2, 3, 8] {
            let cores = Cores::new(cores);
            for len in [0, 1, 7, 8, 9, 1000] {
                let items: Vec<usize> = (0..len).collect();
                let doubled = on(&cores, items, 4, |piece| piece.into_iter().map(|n| n * 2).collect());
                assert_eq!(doubled, (0..len).map(|n| n * 2).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn uses_all_cores_but_no_more_for_many_callers() {
        let cores = Cores::new(3);
        let (busy, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let piece = |piece: Vec<usize>| {
            let now = busy.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            // Long enough for the others to come.
            let sum: u64 = (0..200_000_u64).fold(0, |sum, n| sum ^ std::hint::black_box(n));
            std::hint::black_box(sum);
            busy.fetch_sub(1, Ordering::SeqCst);
            piece
        };
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(on(&cores, (0..6).collect(), 1, piece), [0, 1, 2, 3, 4, 5]);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert_eq!(cores.state().free, 3);
    }

    #[test]
    fn pieces_have_the_least_size() {
        let sizes = |cores, len, min| on(&Cores::new(cores), vec![(); len], min, |piece| vec![piece.len()]);
        assert_eq!(sizes(2, 8, 1), [1; 8]);
        assert_eq!(sizes(2, 80, 1), [10; 8]);
        assert_eq!(sizes(2, 80, 30), [30, 30, 20]);
        assert_eq!(sizes(2, 3, 4), [3]);
        assert_eq!(sizes(1, 80, 1), [80]);
    }

    #[test]
    fn cores_that_become_free_help() {
        let cores = Cores::new(2);
        let taken = Mutex::new(cores.more(1));
        let (first, threads) = (AtomicUsize::new(0), Mutex::new(std::collections::BTreeSet::new()));
        on(&cores, vec![(); 8], 1, |piece| {
            if first.fetch_add(1, Ordering::SeqCst) == 0 {
                // Alone so far.
                taken.lock().unwrap().clear();
            }
            threads.lock().unwrap().insert(format!("{:?}", thread::current().id()));
            // Until the other core has come.
            while first.load(Ordering::SeqCst) >= 2 && threads.lock().unwrap().len() < 2 {
                thread::yield_now();
            }
            piece
        });
        assert_eq!(threads.lock().unwrap().len(), 2);
    }

    #[test]
    fn helpers_make_room_for_a_call_without_a_core() {
        let cores = Cores::new(2);
        let (waited, helped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let caller = thread::current().id();
        thread::scope(|scope| {
            on(&cores, (0..8).collect(), 1, |piece: Vec<usize>| {
                if thread::current().id() != caller && helped.fetch_add(1, Ordering::SeqCst) == 0 {
                    // Both cores are taken now.
                    scope.spawn(|| on(&cores, vec![()], 1, |_| vec![waited.fetch_add(1, Ordering::SeqCst)]));
                    while cores.state().waiting == 0 {
                        thread::yield_now();
                    }
                } else if piece != [0] {
                    // The other call is served before this one ends.
                    while waited.load(Ordering::SeqCst) == 0 {
                        thread::yield_now();
                    }
                }
                piece
            });
        });
        assert_eq!(waited.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_call_from_a_piece_waits_for_nobody() {
        let cores = Cores::new(2);
        let nested = on(&cores, vec![1, 2], 1, |outer| {
            outer.into_iter().flat_map(|n| on(&cores, vec![n, n], 1, |inner| inner)).collect()
        });
        assert_eq!(nested, [1, 1, 2, 2]);
    }

    #[test]
    fn a_panic_gives_the_cores_back() {
        let cores = Cores::new(2);
        for guilty in 0..2 {
            let result = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                on(&cores, vec![0, 1], 1, |piece| {
                    assert_ne!(piece, [guilty], "on purpose");
                    piece
                })
            }));
            assert!(result.is_err());
            assert_eq!(cores.state().free, 2);
            assert!(!HAS_CORE.get());
        }
    }
}
