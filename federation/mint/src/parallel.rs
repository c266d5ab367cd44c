//! Curve arithmetic over the cores.

use std::num::NonZero;
use std::thread;

/// Maps pieces of `items`, each of at least `min` items, on at most as many threads as there are cores; keeps the order.
/// Computes on the calling thread if one piece is all there is.
pub(crate) fn map_pieces<T: Send, R: Send>(
    items: Vec<T>,
    min: usize,
    map: impl Fn(Vec<T>) -> Vec<R> + Sync,
) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let pieces = cores.min(items.len() / min.max(1)).max(1);
    if pieces == 1 {
        return map(items);
    }
    let size = items.len().div_ceil(pieces);
    let mut items = items.into_iter();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..pieces)
            .map(|_| items.by_ref().take(size).collect::<Vec<_>>())
            .map(|piece| scope.spawn(|| map(piece)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn keeps_the_order() {
        for len in [0, 1, 7, 8, 9, 1000] {
            let items: Vec<usize> = (0..len).collect();
            let doubled = super::map_pieces(items, 4, |piece| piece.into_iter().map(|n| n * 2).collect());
            assert_eq!(doubled, (0..len).map(|n| n * 2).collect::<Vec<_>>());
        }
    }
}
