//! Work on several threads whose results come in the order of what was put in, so that the bytes
//! of a table and a pack do not depend on how many threads there are.

use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// Lets `threads` threads do the work. `feed` puts items in, `take` gets the result of each; both
/// run on the caller's thread. At most two items a thread are under way at once: that bounds memory.
/// `worker` makes what works, once for each thread.
pub fn in_order<T: Send, R: Send, W: FnMut(T) -> R>(
    threads: NonZeroUsize,
    worker: impl Fn() -> W + Sync,
    feed: impl FnOnce(&mut dyn FnMut(T) -> Result<()>) -> Result<()>,
    mut take: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let (queue, jobs) = mpsc::channel::<(T, mpsc::Sender<R>)>();
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| {
                let mut work = worker();
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((item, reply)) = job else { return };
                    // Nobody waits for it any more after an error.
                    let _ = reply.send(work(item));
                }
            });
        }
        // The threads end when this goes.
        let queue = queue;
        let mut waiting: VecDeque<mpsc::Receiver<R>> = VecDeque::new();
        let mut next = |waiting: &mut VecDeque<mpsc::Receiver<R>>| {
            match waiting.pop_front().map(|reply| reply.recv()) {
                Some(Ok(result)) => take(result),
                // A worker that answers nothing panicked, and so does the scope when all have ended.
                Some(Err(_)) => Err(Error::Refused("a thread ended early")),
                None => Ok(()),
            }
        };
        feed(&mut |item| {
            if waiting.len() >= 2 * threads.get() {
                next(&mut waiting)?;
            }
            let (reply, result) = mpsc::channel();
            let _ = queue.send((item, reply));
            waiting.push_back(result);
            Ok(())
        })?;
        while !waiting.is_empty() {
            next(&mut waiting)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    #[should_panic = "a scoped thread panicked"]
    fn a_worker_that_panics_ends_it() {
        let worker = || |_: usize| -> usize { panic!("as the test wants") };
        let feed = |put: &mut dyn FnMut(usize) -> Result<()>| (0..100usize).try_for_each(&mut *put);
        let _ = in_order(NonZeroUsize::MIN, worker, feed, |_| Ok(()));
    }

    #[test]
    fn order_stays_and_little_is_under_way() {
        for threads in [1, 2, 7] {
            let threads = NonZeroUsize::new(threads).expect("not zero");
            let (begun, mut taken, most) = (AtomicUsize::new(0), Vec::new(), 2 * threads.get());
            let worker = || {
                |number: usize| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    // The first of each ten is the slowest.
                    for n in 0..(10 - number % 10) * 1000 {
                        std::hint::black_box(n);
                    }
                    number
                }
            };
            in_order(
                threads,
                worker,
                |put| (0..200).try_for_each(put),
                |number| {
                    taken.push(number);
                    assert!(begun.load(Ordering::SeqCst) <= taken.len() + most);
                    Ok(())
                },
            )
            .expect("all done");
            assert_eq!(taken, (0..200).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_it() {
        let two = NonZeroUsize::new(2).expect("not zero");
        let mut put_in = 0;
        let result = in_order(
            two,
            || |number: u32| number,
            |put| {
                (0..100).try_for_each(|number| {
                    put_in += 1;
                    put(number)
                })
            },
            |number| if number == 3 { Err(Error::Refused("three")) } else { Ok(()) },
        );
        assert!(matches!(result, Err(Error::Refused("three"))));
        assert!(put_in < 100, "{put_in}");
    }
}
