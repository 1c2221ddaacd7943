//! Work on many independent items at start, on all cores.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;

/// The results of `work` for all `items`, in their order. `threads` threads, the calling one among
/// them, take one item after the other: some wait for the device while others compute. With at
/// most one thread the items are worked on in their order.
///
/// # Panics
/// If `work` does.
pub fn map<T, R: Send>(
    items: impl IntoIterator<IntoIter: ExactSizeIterator<Item = T> + Send>,
    threads: usize,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let items = items.into_iter();
    let helpers = 1..threads.min(items.len());
    let items = Mutex::new(items.enumerate());
    let next = || items.lock().expect("iterators of this product do not panic").next();
    let take_all = || {
        let mut results = Vec::new();
        while let Some((index, item)) = next() {
            results.push((index, work(item)));
        }
        results
    };
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let helpers: Vec<_> = helpers.map(|_| scope.spawn(take_all)).collect();
        let mut results = take_all();
        for helper in helpers {
            results.extend(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<usize> = (0..1_000).collect();
        for threads in [0, 1, 3, 2_000] {
            let doubled = map(&items, threads, |item| item * 2);
            assert!(doubled.iter().enumerate().all(|(index, it)| *it == index * 2), "{threads}");
        }
        assert_eq!(map(Vec::<usize>::new(), 4, |item| item), []);
    }

    #[test]
    fn items_are_worked_on_at_the_same_time() {
        let both = Barrier::new(2);
        map([(), ()], 2, |()| both.wait());
    }
}
