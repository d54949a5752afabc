//! Layout of a batch in its block of integers, and how the host fills it.

use super::HostPairing;
use crate::backend::WORD_BITS;

/// Elements in 16 bytes: lists in a block begin at multiples of this.
pub(super) const ALIGNMENT: usize = 4;

/// Rows of queries in one entry of the attention's work list.
pub const ATTENTION_ROWS: usize = 128;

/// A range of a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub start: usize,
    pub len: usize,
}

/// Places of the lists of segments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentSpans {
    pub order: Span,
    pub starts: Span,
    pub rows: Span,
}

/// Places of the lists of a chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunk {
    /// Place of the chunk's first sequence in the batch.
    pub first_seq: usize,
    pub max_seqlen: usize,
    pub ids: Span,
    pub positions: Span,
    pub cu_seqlens: Span,
    pub global_rows: Span,
    pub work: Span,
    /// Range of [`PackedLayout::work_lens`].
    pub work_lens: Span,
    /// Segments of the word, position and token type embeddings.
    pub segments: [SegmentSpans; 3],
}

/// Places of all lists in a block: stays on the host when the block goes to the device.
#[derive(Clone, Debug, Default)]
pub(super) struct PackedLayout {
    /// Number of integers in the block.
    pub len: usize,
    pub unique_ids: Span,
    /// Places, labels, rejected passages, those that are left out, queries' own negatives, and a teacher's scores.
    pub pairing: [Span; 6],
    pub chunks: Vec<Chunk>,
    pub work_lens: Vec<i32>,
}

/// A batch laid out on the host. Its memory is reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct PackedHost {
    block: Vec<i32>,
    pub(super) layout: PackedLayout,
    /// For each token id of the batch its row in the gradient of the word embeddings; undefined for other ids.
    row_of_id: Vec<i32>,
    /// Place of the next token of each row.
    ends: Vec<i32>,
}

impl PackedHost {
    /// Most integers that a batch of `n_seqs` sequences, none longer than `longest`, with `n_tokens` tokens in `n_chunks`
    /// chunks can take.
    pub fn most_integers(n_tokens: usize, n_seqs: usize, n_chunks: usize, longest: usize) -> usize {
        // Three lists of tokens, three in another order, the segments of the token ids, and the unique ids.
        let of_tokens = 9 * n_tokens;
        // A start, pairs of pieces of the attention's work, place and label, and at most as many ends of rejected
        // passages.
        let of_seqs = 6 * n_seqs + 2 * (n_tokens / ATTENTION_ROWS);
        // Segments of the positions; ends, the segment of the types, and the gaps between the lists.
        let of_chunk = 2 * longest + 64;
        of_tokens + of_seqs + n_chunks * of_chunk
    }

    /// Most integers that a teacher's scores add to that, with what tells whose negatives they are of, for `n_queries`
    /// queries and `n_passages` passages.
    pub fn most_of_teacher(n_queries: usize, n_passages: usize) -> usize {
        2 * n_queries + n_passages + 2 * ALIGNMENT
    }

    /// Begins a batch. `ids`: all its token ids, if its chunks will be propagated back and so need segments.
    pub fn begin(&mut self, ids: Option<&[i32]>) {
        self.block.clear();
        self.layout.chunks.clear();
        self.layout.work_lens.clear();
        self.layout.unique_ids = Span::default();
        self.layout.pairing = Default::default();
        let Some(ids) = ids else { return };
        self.block.extend_from_slice(ids);
        self.block.sort_unstable();
        self.block.dedup();
        let n_ids = self.block.last().map_or(0, |&last| last as usize + 1);
        self.row_of_id.resize(self.row_of_id.len().max(n_ids), 0);
        for (row, &id) in (0..).zip(&self.block) {
            self.row_of_id[id as usize] = row;
        }
        self.layout.unique_ids = Span { start: 0, len: self.block.len() };
    }

    /// Adds the next chunk: the `ids` of its tokens; where each of its sequences starts and the last one ends, counted from
    /// anywhere; and the number of each sequence's first token in the whole batch. A sequence's first token has the position
    /// `first_position`.
    pub fn push_chunk(&mut self, ids: &[i32], cu_seqlens: &[i32], first_rows: &[i32], first_position: i32) {
        let first = cu_seqlens[0];
        let lens = || cu_seqlens.windows(2).map(|w| w[1] - w[0]);
        assert!(lens().all(|len| len > 0), "a sequence has at least its special tokens");
        assert_eq!(lens().sum::<i32>() as usize, ids.len(), "the sequences are the tokens");
        assert_eq!(lens().count(), first_rows.len(), "a first row for each sequence");
        let max_seqlen = lens().max().unwrap_or(0);
        let positions = || lens().flat_map(|len| first_position..first_position + len);
        let global_rows = lens().zip(first_rows).flat_map(|(len, &row)| row..row + len);
        let first_seq = self.layout.chunks.last().map_or(0, |chunk| chunk.first_seq + chunk.cu_seqlens.len - 1);
        let work_start = self.layout.work_lens.len();
        let (block, work_lens) = (&mut self.block, &mut self.layout.work_lens);
        let mut chunk = Chunk {
            first_seq,
            max_seqlen: max_seqlen as usize,
            ids: push(block, ids.iter().copied()),
            positions: push(block, positions()),
            cu_seqlens: push(block, cu_seqlens.iter().map(|at| at - first)),
            global_rows: push(block, global_rows),
            work: push_with(block, |block| attention_work(cu_seqlens, block, work_lens)),
            work_lens: Span { start: work_start, len: work_lens.len() - work_start },
            segments: Default::default(),
        };
        if self.layout.unique_ids.len > 0 {
            let (row_of_id, ends) = (&self.row_of_id, &mut self.ends);
            let rows = ids.iter().map(|&id| row_of_id[id as usize]);
            chunk.segments = [
                push_segments(block, ends, self.layout.unique_ids.len, rows),
                push_segments(block, ends, (first_position + max_seqlen) as usize, positions()),
                // Every token has type 0.
                push_segments(block, ends, 1, ids.iter().map(|_| 0)),
            ];
        }
        self.layout.chunks.push(chunk);
        self.layout.len = self.block.len();
    }

    /// Adds which sequences belong together, after all chunks. They may be more than those in the chunks: the others are
    /// embedded elsewhere.
    ///
    /// # Panics
    /// If `pairing` has fewer sequences, or lists of different lengths.
    pub fn push_pairing(&mut self, pairing: &HostPairing) {
        let HostPairing { n_queries, places, labels, rejected, left_out, own_negatives, teacher_scores } = *pairing;
        let n_packed = self.layout.chunks.last().map_or(0, |chunk| chunk.first_seq + chunk.cu_seqlens.len - 1);
        let n_seqs = places.len();
        assert!(n_packed <= n_seqs, "packed: a pairing of all sequences");
        assert_eq!([labels.len(), rejected.len()], [n_seqs, 2 * n_queries], "packed: pairing");
        let words = (n_seqs - n_queries).div_ceil(WORD_BITS);
        assert!(left_out.is_empty() || left_out.len() == n_queries * words, "packed: a bit for every passage");
        let of_teacher = [own_negatives.len(), teacher_scores.len()];
        let expected = if teacher_scores.is_empty() { [0, 0] } else { [2 * n_queries, n_seqs - n_queries] };
        assert_eq!(of_teacher, expected, "packed: a teacher's scores");
        let [places, labels, rejected, left_out, own] =
            [places, labels, rejected, left_out, own_negatives].map(|part| push(&mut self.block, part.iter().copied()));
        let scores = push(&mut self.block, teacher_scores.iter().map(|score| score.to_bits() as i32));
        self.layout.pairing = [places, labels, rejected, left_out, own, scores];
        self.layout.len = self.block.len();
    }

    /// All integers of the batch, as one block.
    pub fn block(&self) -> &[i32] {
        &self.block
    }
}

/// Calls `f` to append a list to `block`, at the next place where a list may begin.
fn push_with(block: &mut Vec<i32>, f: impl FnOnce(&mut Vec<i32>)) -> Span {
    block.resize(block.len().next_multiple_of(ALIGNMENT), 0);
    let start = block.len();
    f(block);
    Span { start, len: block.len() - start }
}

fn push(block: &mut Vec<i32>, values: impl Iterator<Item = i32>) -> Span {
    push_with(block, |block| block.extend(values))
}

/// Adds the tokens sorted by row, those of one row in token order. `rows`: the row of each token, below `n_rows`.
fn push_segments(
    block: &mut Vec<i32>,
    ends: &mut Vec<i32>,
    n_rows: usize,
    rows: impl Iterator<Item = i32> + Clone,
) -> SegmentSpans {
    // A counting sort: first where each row's tokens begin, then each token goes to the next free place of its row.
    ends.clear();
    ends.resize(n_rows, 0);
    rows.clone().for_each(|row| ends[row as usize] += 1);
    let mut n_tokens = 0;
    for end in ends.iter_mut() {
        n_tokens += std::mem::replace(end, n_tokens);
    }
    let order = push(block, std::iter::repeat_n(0, n_tokens as usize));
    for (token, row) in (0..).zip(rows) {
        let end = &mut ends[row as usize];
        block[order.start + *end as usize] = token;
        *end += 1;
    }
    // Now a row's tokens end where the next row's begin.
    let ranges = || ends.iter().scan(0, |start, &end| Some((std::mem::replace(start, end), end)));
    let taken = || (0..).zip(ranges()).filter(|(_, (start, end))| start < end);
    SegmentSpans {
        order,
        starts: push(block, taken().map(|(_, (start, _))| start).chain([n_tokens])),
        rows: push(block, taken().map(|(row, _)| row)),
    }
}

/// Cuts the attention over a batch into pieces of like size. Adds to `work`, for each block of at most
/// [`ATTENTION_ROWS`] query rows, the number of its sequence and its first row in that sequence, and to `work_lens` the
/// sequence's length. Longest sequences come first, so that the last pieces to finish are short; equally long ones come
/// by number, and the rows of a sequence ascend.
pub fn attention_work(cu_seqlens: &[i32], work: &mut Vec<i32>, work_lens: &mut Vec<i32>) {
    let len = |seq: i32| cu_seqlens[seq as usize + 1] - cu_seqlens[seq as usize];
    let first = work.len();
    for seq in 0..cu_seqlens.len() as i32 - 1 {
        work.extend((0..len(seq)).step_by(ATTENTION_ROWS).flat_map(|row| [seq, row]));
    }
    let pieces = work[first..].as_chunks_mut::<2>().0;
    pieces.sort_unstable_by_key(|&[seq, row]| (std::cmp::Reverse(len(seq)), seq, row));
    work_lens.extend(pieces.iter().map(|&[seq, _]| len(seq)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sequences_are_cut_and_come_first() {
        // Lengths 2, 300, 1, 128 and 300.
        let cu_seqlens = [0, 2, 302, 303, 431, 731];
        let (mut work, mut work_lens) = (vec![7], Vec::new());
        attention_work(&cu_seqlens, &mut work, &mut work_lens);
        let expected = [[1, 0], [1, 128], [1, 256], [4, 0], [4, 128], [4, 256], [3, 0], [0, 0], [2, 0]];
        assert_eq!(work[0], 7, "what was there stays");
        assert_eq!(work[1..].as_chunks::<2>().0, expected);
        assert_eq!(work_lens, [300, 300, 300, 300, 300, 300, 128, 2, 1]);
    }

    /// Batches of the largest size: no id occurs twice, chunks are full, lengths are just above a piece of work.
    #[test]
    fn no_batch_takes_more_integers_than_its_bound() {
        for (len, seqs_per_chunk, n_chunks) in
            [(1, 1, 9), (1, 200, 3), (129, 1, 5), (129, 6, 2), (7, 10, 4), (3000, 1, 1)]
        {
            let n_seqs = seqs_per_chunk * n_chunks;
            let ids: Vec<i32> = (0..(len * n_seqs) as i32).rev().collect();
            let cu_seqlens: Vec<i32> = (0..=n_seqs).map(|s| (s * len) as i32).collect();
            let mut host = PackedHost::default();
            host.begin(Some(&ids));
            for chunk in 0..n_chunks {
                let seqs = chunk * seqs_per_chunk..(chunk + 1) * seqs_per_chunk;
                let chunk = &cu_seqlens[seqs.start..=seqs.end];
                host.push_chunk(&ids[seqs.start * len..seqs.end * len], chunk, &chunk[..seqs_per_chunk], 0);
            }
            let numbers = vec![0; n_seqs];
            let rejected = &numbers[..2 * (n_seqs / 2)];
            let n_queries = n_seqs / 2;
            let left_out = &vec![0; n_queries * (n_seqs - n_queries).div_ceil(WORD_BITS)];
            let (own_negatives, teacher_scores) = (&numbers[..2 * n_queries], &vec![0.5; n_seqs - n_queries][..]);
            let (places, labels) = (&numbers[..], &numbers[..]);
            let pairing = HostPairing { n_queries, places, labels, rejected, left_out, own_negatives, teacher_scores };
            host.push_pairing(&pairing);
            let got = host.block().len();
            let most = PackedHost::most_integers(ids.len(), n_seqs, n_chunks, len)
                + left_out.len()
                + PackedHost::most_of_teacher(n_queries, n_seqs - n_queries);
            assert!(got <= most, "{n_chunks} chunks of {seqs_per_chunk} times {len}: {got} of {most}");
            assert!(most <= got + n_chunks * 64, "a bound far off is none: {got} of {most}");
        }
    }
}
