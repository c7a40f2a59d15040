use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// A queue, its spares, and the bytes that it should return.
#[derive(Default)]
struct Scene {
    queue: WriteQueue,
    spares: Spares,
    model: VecDeque<u8>,
    /// The number of the next byte.
    next: u8,
}

impl Scene {
    /// This many bytes, each different from the next.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..count).map(|at| self.next.wrapping_add((at % 251) as u8)).collect();
        self.next = self.next.wrapping_add(101);
        self.model.extend(&bytes);
        bytes
    }

    fn copy(&mut self, count: usize) {
        let bytes = self.bytes(count);
        self.queue.push(&bytes, &mut self.spares);
    }

    fn give(&mut self, count: usize) {
        let bytes = self.bytes(count);
        self.queue.append(Buffer::from(bytes).into());
    }

    fn splice(&mut self, count: usize) {
        let bytes = self.bytes(count);
        self.queue.append(Box::new(KernelPipe::in_memory(bytes)).into());
    }

    /// The kernel takes bytes, from memory and from pipes.
    fn sent(&mut self, mut count: usize) {
        while count > 0 {
            let now = match self.queue.first_pipe() {
                Some(pipe) => {
                    let now = count.min(pipe.len());
                    assert!(pipe.memory().iter().eq(self.model.iter().take(pipe.len())));
                    pipe.drain(now);
                    now
                }
                None => self.pieces(count).iter().sum(),
            };
            self.model.drain(..now);
            self.queue.sent(now, &mut self.spares);
            count -= now;
        }
    }

    /// The lengths of the pieces that wait. Every byte of them is checked.
    #[track_caller]
    fn pieces(&self, limit_bytes: usize) -> Vec<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES];
        let (count, bytes) = self.queue.gather(&mut slices, limit_bytes);
        let lengths: Vec<usize> = slices[..count].iter().map(|slice| slice.len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), bytes);
        assert!(slices[..count].iter().flat_map(|slice| slice.iter()).eq(self.model.iter().take(bytes)));
        assert!(bytes <= limit_bytes && slices[count..].iter().all(|slice| slice.is_empty()));
        lengths
    }

    #[track_caller]
    fn check(&self) {
        assert_eq!(self.queue.audit(), Ok(()));
        assert_eq!(self.queue.len(), self.model.len());
        let all = self.pieces(usize::MAX);
        let is_last = all.len() == PIECES || all.iter().sum::<usize>() == self.queue.before_a_pipe();
        assert!(is_last, "nothing is left out");
        let single = self.queue.single();
        assert_eq!(single.is_some(), self.queue.chunks() == 1 && !self.queue.starts_with_pipe());
        assert!(single.is_none_or(|bytes| bytes.iter().eq(&self.model)));
        assert!(self.queue.held() <= self.model.len() + self.slack(), "{} are held", self.queue.held());
        assert!(self.spares.0.len() <= SPARES && self.spares.0.iter().all(|spare| spare.is_empty()));
        assert!(self.spares.0.iter().all(|spare| (1..=CHUNK_BYTES).contains(&spare.capacity())));
    }

    /// What may be held beyond the bytes that wait: the sent part of the first chunk, its unused
    /// capacity, and that of the last.
    fn slack(&self) -> usize {
        self.queue.sent + 2 * CHUNK_BYTES
    }
}

impl WriteQueue {
    fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes that wait in memory before the first pipe.
    fn before_a_pipe(&self) -> usize {
        let chunks = self.chunks.iter().take_while(|chunk| !matches!(chunk, Chunk::Spliced(..)));
        chunks.map(Chunk::len).sum::<usize>().saturating_sub(self.sent)
    }

    /// The memory that all chunks hold.
    fn held(&self) -> usize {
        let held = |chunk: &Chunk| match chunk {
            Chunk::Copied(bytes) => bytes.capacity(),
            Chunk::Given(buffer) => buffer.held(),
            Chunk::Spliced(..) => 0,
        };
        self.chunks.iter().map(held).sum()
    }
}

#[derive(Debug, Clone)]
enum Op {
    Copy(usize),
    Give(usize),
    Splice(usize),
    Unsplice,
    /// In thousandths of what waits.
    Sent(usize),
    Gather(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![0..10_usize, 0..5_000_usize, 0..40_000_usize, Just(COPY_BELOW_BYTES), Just(CHUNK_BYTES)];
    prop_oneof![
        3 => size().prop_map(Op::Copy),
        3 => size().prop_map(|count| Op::Give(count.max(1))),
        2 => (1..70_000_usize).prop_map(Op::Splice),
        1 => Just(Op::Unsplice),
        3 => prop_oneof![0..=1000_usize, Just(1000)].prop_map(Op::Sent),
        1 => (0..200_000_usize).prop_map(Op::Gather),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_queue_of_chunks_is_like_a_plain_row_of_bytes(ops in prop::collection::vec(op(), 0..40)) {
        let mut scene = Scene::default();
        for op in ops {
            match op {
                Op::Copy(count) => scene.copy(count),
                Op::Give(count) => scene.give(count),
                Op::Splice(count) => scene.splice(count),
                Op::Unsplice => scene.queue.unsplice_first().expect("it is in memory"),
                Op::Sent(parts) => scene.sent(scene.model.len() * parts / 1000),
                Op::Gather(limit_bytes) => drop(scene.pieces(limit_bytes)),
            }
            scene.check();
        }
        scene.queue.release(&mut scene.spares);
        prop_assert!(scene.spares.0.len() <= SPARES);
    }
}

#[test]
fn a_pipe_that_was_emptied_is_used_again_and_one_with_bytes_is_not() {
    let mut scene = Scene::default();
    scene.splice(10);
    scene.splice(10);
    scene.sent(10);
    assert!(scene.spares.1.take().is_some_and(|pipe| pipe.is_empty()));
    scene.sent(5);
    scene.queue.release(&mut scene.spares);
    assert!(scene.spares.1.take().is_none(), "what is in it belongs to another stream");
    (0..2 * SPARE_PIPES).for_each(|_| scene.spares.1.put(Box::new(KernelPipe::in_memory(Vec::new()))));
    assert_eq!(scene.spares.1.0.len(), SPARE_PIPES);
    scene.spares.1.close();
    assert!(scene.spares.1.take().is_none());
}

#[test]
fn small_writes_are_one_piece_until_a_chunk_is_full() {
    let mut scene = Scene::default();
    (0..CHUNK_BYTES / 16).for_each(|_| scene.copy(16));
    assert_eq!((scene.queue.chunks(), scene.queue.held()), (1, CHUNK_BYTES));
    scene.copy(1);
    assert_eq!(scene.pieces(usize::MAX), [CHUNK_BYTES, 1]);
    scene.check();
}

#[test]
fn a_large_write_is_copied_into_whole_chunks_behind_what_waits() {
    let mut scene = Scene::default();
    scene.copy(10);
    scene.copy(2 * CHUNK_BYTES);
    assert_eq!(scene.pieces(usize::MAX), [CHUNK_BYTES, CHUNK_BYTES, 10]);
    scene.sent(CHUNK_BYTES + 5);
    assert_eq!(scene.pieces(CHUNK_BYTES), [CHUNK_BYTES - 5, 5]);
    assert_eq!(scene.spares.0.len(), 1, "the chunk that was sent is let go at once");
    scene.copy(1);
    assert_eq!(scene.pieces(usize::MAX), [CHUNK_BYTES - 5, 11]);
    scene.check();
}

#[test]
fn a_chunk_grows_with_what_is_in_it_and_never_beyond_its_size() {
    let mut scene = Scene::default();
    scene.copy(3);
    assert_eq!(scene.queue.held(), 3);
    scene.copy(1);
    assert_eq!(scene.queue.held(), 6, "twice, so that bytes are seldom moved");
    scene.copy(CHUNK_BYTES - 10);
    assert_eq!(scene.queue.held(), CHUNK_BYTES - 6);
    scene.copy(1);
    assert_eq!((scene.queue.held(), scene.queue.chunks()), (CHUNK_BYTES, 1));
    scene.check();
}

#[test]
fn a_buffer_that_was_given_away_is_not_copied() {
    let mut scene = Scene::default();
    let large = Arc::new(vec![1; COPY_BELOW_BYTES]);
    scene.queue.append(Buffer::from(Arc::clone(&large)).into());
    assert_eq!(scene.queue.single().map(<[u8]>::as_ptr), Some(large.as_ptr()));
    assert_eq!(Arc::strong_count(&large), 2);
    scene.queue.sent(COPY_BELOW_BYTES, &mut scene.spares);
    assert_eq!(Arc::strong_count(&large), 1, "what was sent is dropped");
    scene.queue.append(Buffer::from(Arc::clone(&large)).into());
    scene.queue.append(Buffer::from(Arc::clone(&large)).into());
    assert_eq!((Arc::strong_count(&large), scene.queue.chunks()), (3, 2));
    scene.queue.release(&mut scene.spares);
    assert_eq!(Arc::strong_count(&large), 1, "what was never sent too");
}

#[test]
fn small_pieces_between_large_ones_hold_no_room() {
    let mut scene = Scene::default();
    for _ in 0..10 {
        scene.copy(10);
        scene.spares.0.push(Vec::with_capacity(CHUNK_BYTES));
        scene.splice(10);
    }
    assert_eq!(scene.queue.held(), 10 * 10, "between pipes");
    let mut scene = Scene::default();
    scene.copy(CHUNK_BYTES);
    scene.sent(CHUNK_BYTES);
    for _ in 0..10 {
        scene.copy(10);
        scene.spares.0.push(Vec::with_capacity(CHUNK_BYTES));
        scene.give(COPY_BELOW_BYTES);
    }
    assert_eq!(scene.queue.held(), CHUNK_BYTES + 9 * 10 + 10 * COPY_BELOW_BYTES, "the first chunk alone has room");
    assert_eq!(scene.pieces(usize::MAX).len(), 20);
    let mut roomy = Vec::with_capacity(10 * CHUNK_BYTES);
    roomy.extend(scene.bytes(COPY_BELOW_BYTES));
    scene.queue.append(Buffer::from(roomy).into());
    scene.check();
}

#[test]
fn a_list_has_so_many_pieces_and_no_more() {
    let mut scene = Scene::default();
    (0..PIECES + 3).for_each(|_| scene.give(COPY_BELOW_BYTES));
    assert_eq!(scene.pieces(usize::MAX).len(), PIECES);
    assert_eq!(scene.pieces(COPY_BELOW_BYTES + 1), [COPY_BELOW_BYTES, 1]);
    assert_eq!(scene.pieces(COPY_BELOW_BYTES), [COPY_BELOW_BYTES]);
    assert_eq!(scene.pieces(0), [0; 0]);
    scene.sent(PIECES * COPY_BELOW_BYTES);
    assert_eq!(scene.pieces(usize::MAX).len(), 3);
}

#[test]
fn a_turns_quantum_is_one_list_of_chunks() {
    assert_eq!(PIECES * CHUNK_BYTES, 1 << 20);
}

#[test]
fn a_list_that_was_long_is_let_go_when_the_queue_is_empty() {
    for (chunks, kept) in [(PIECES, true), (10 * PIECES, false)] {
        let mut scene = Scene::default();
        (0..chunks).for_each(|_| scene.give(COPY_BELOW_BYTES));
        scene.sent(chunks * COPY_BELOW_BYTES);
        assert_eq!((scene.queue.chunks.capacity() > 0, scene.queue.held()), (kept, 0));
        scene.copy(5);
        assert_eq!(scene.pieces(usize::MAX), [5]);
        scene.check();
    }
}

#[test]
fn a_chunk_is_used_again_and_comes_back_empty() {
    let mut scene = Scene::default();
    scene.copy(CHUNK_BYTES);
    std::mem::take(&mut scene.queue).release(&mut scene.spares);
    assert_eq!((scene.queue.held(), scene.spares.0.len()), (0, 1), "an empty queue holds none");
    scene.model.clear();
    scene.copy(1);
    assert_eq!((scene.queue.held(), scene.spares.0.len()), (CHUNK_BYTES, 0), "there was only one");
    scene.sent(1);
    assert_eq!((scene.queue.held(), scene.spares.0.len()), (0, 1), "sent to the end, it is let go at once");
    scene.give(COPY_BELOW_BYTES);
    assert_eq!((scene.queue.held(), scene.spares.0.len()), (COPY_BELOW_BYTES, 1));
}

#[test]
fn what_is_kept_in_reserve_is_a_mebibyte_at_the_most() {
    assert_eq!(SPARES * CHUNK_BYTES, 1 << 20);
    let mut scene = Scene::default();
    scene.copy((SPARES + 2) * CHUNK_BYTES);
    scene.sent((SPARES + 2) * CHUNK_BYTES);
    assert_eq!((scene.spares.0.len(), scene.queue.held()), (SPARES, 0));
    std::mem::take(&mut scene.queue).release(&mut scene.spares);
    assert_eq!(scene.spares.0.len(), SPARES);
    let mut spares = Spares::default();
    WriteQueue::default().release(&mut spares);
    assert_eq!(spares.0.len(), 0, "one that holds nothing is none");
}

#[test]
fn a_queue_that_is_wrong_is_noticed() {
    type Mistake = fn(&mut WriteQueue);
    let broken: [(Mistake, &str); 3] = [
        (|queue| queue.bytes += 1, "its queue's chunks are not what waits and what was sent"),
        (|queue| queue.chunks.push_back(Chunk::Copied(Vec::new())), "its queue has an empty chunk"),
        (|queue| (queue.sent, queue.bytes) = (10, 0), "its queue holds a chunk that was sent"),
    ];
    for (mistake, rule) in broken {
        let mut scene = Scene::default();
        scene.copy(10);
        mistake(&mut scene.queue);
        assert_eq!(scene.queue.audit(), Err(rule));
    }
}
