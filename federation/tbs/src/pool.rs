//! Curve arithmetic over the cores, and never on more threads than there are cores, whoever calls and from wherever.
//!
//! A call first waits for one core, computes on its own thread, and takes along as many more as are free at that moment.
//! So two calls at once share the cores instead of both using all of them, and a call made from inside a piece computes
//! right there. Threads live as long as their piece: that costs some 30 µs, and keeps borrowed data possible.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::{panic, thread};

/// The cores of this machine that no piece is computed on.
static CORES: LazyLock<Cores> =
    LazyLock::new(|| Cores::new(thread::available_parallelism().map_or(1, NonZero::get)));

thread_local! {
    /// Whether this thread computes a piece, and so has a core already.
    static HAS_CORE: Cell<bool> = const { Cell::new(false) };
}

/// Maps pieces of `items`, each of at least `min` items, on at most as many threads as there are cores; keeps the order.
/// The calling thread computes the first piece, and waits for a core before: keep it off async threads.
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
    mut items: Vec<T>,
    min: usize,
    map: impl Fn(Vec<T>) -> Vec<R> + Sync,
) -> Vec<R> {
    if items.is_empty() || HAS_CORE.get() {
        return map(items);
    }
    let mut taken = cores.take((items.len() / min.max(1)).max(1));
    let size = items.len().div_ceil(taken.len());
    let own = taken.pop();
    let mut rest = items.split_off(size.min(items.len())).into_iter();
    thread::scope(|scope| {
        let map = &map;
        let threads: Vec<_> = taken
            .into_iter()
            .map(|core| (core, rest.by_ref().take(size).collect::<Vec<_>>()))
            .map(|(core, piece)| scope.spawn(move || core.compute(|| map(piece))))
            .collect();
        let mut results = own.map(|core| core.compute(|| map(items))).unwrap_or_default();
        for thread in threads {
            results.extend(thread.join().unwrap_or_else(|reason| panic::resume_unwind(reason)));
        }
        results
    })
}

struct Cores {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Cores {
    fn new(number: usize) -> Self {
        Self { free: Mutex::new(number), freed: Condvar::new() }
    }

    /// Waits for one, and takes up to `wanted`; never none.
    fn take(&self, wanted: usize) -> Vec<Core<'_>> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        let taken = wanted.min(*free);
        *free -= taken;
        (0..taken).map(|_| Core(self)).collect()
    }
}

/// The right to compute on one core. Given back when dropped, whether its piece ended well or not.
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
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
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
        assert_eq!(*cores.free.lock().unwrap(), 3);
    }

    #[test]
    fn pieces_are_as_many_as_free_cores() {
        let cores = Cores::new(4);
        let sizes = |len, min| on(&cores, vec![(); len], min, |piece| vec![piece.len()]);
        assert_eq!(sizes(8, 1), [2, 2, 2, 2]);
        assert_eq!(sizes(9, 4), [5, 4]);
        assert_eq!(sizes(3, 4), [3]);
        let taken = cores.take(3);
        assert_eq!(sizes(8, 1), [8]);
        drop(taken);
        assert_eq!(sizes(8, 2), [2, 2, 2, 2]);
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
            assert_eq!(*cores.free.lock().unwrap(), 2);
            assert!(!HAS_CORE.get());
        }
    }
}
