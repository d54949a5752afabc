//! The token cache's file: its layout, a writer that checksums as it goes, and a reader that trusts nothing.
//!
//! ```text
//! header    4,096 bytes, zeros behind the fields
//! words     u32: for each row of the data, in its order, the bytes of its id and the tokens of its texts
//! texts     TextRecord: by group, then role, language and order of appearance
//! groups    GroupRecord, and one more that closes the last group
//! meta      JSON: languages, classes, counts
//! sums      u64: xxh3 of each block of 1 MiB between the header and here
//! ```
//! Sections start at multiples of 8. Numbers are in the machine's own byte order, which the header names.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::data::catalog::LangId;
use crate::mapped::Mapped;

/// Version of the layout. Raise it with every change to the layout, or to what is written for the same data.
pub(super) const VERSION: u32 = 5;
const MAGIC: [u8; 8] = *b"hbttoken";
const BYTE_ORDER: u32 = 0x0403_0201;
const HEADER_LEN: usize = 4096;
const BLOCK_LEN: usize = 1 << 20;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Header {
    magic: [u8; 8],
    version: u32,
    byte_order: u32,
    key: [u64; 2],
    n_words: u64,
    n_texts: u64,
    n_groups: u64,
    meta_len: u64,
    /// Hash of the section `sums`, which in turn covers all others.
    sums_hash: u64,
    /// Hash of the fields above.
    header_hash: u64,
}

/// One text of one group.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct TextRecord {
    /// First token, an index into `words`.
    pub(super) start: u64,
    /// Hash of the text without its prefix.
    pub(super) hash: u64,
    /// A group to which the text leads (`links.rs`); 0 until all groups are known.
    pub(super) link: u64,
    /// Number of tokens kept.
    pub(super) len: u32,
    /// Number of tokens before truncation.
    pub(super) full_len: u32,
    /// A `Role`: 0 query, 1 positive, 2 negative.
    pub(super) role: u16,
    pub(super) lang: LangId,
    /// A teacher's score; NaN if there is none.
    pub(super) score: f32,
}

/// One group. Its texts end where those of the next group start.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct GroupRecord {
    pub(super) first_text: u64,
    /// Start of its id, an index into `words`.
    pub(super) id_start: u64,
    /// Length of its id in bytes.
    pub(super) id_len: u64,
}

/// Sizes of the sections, as their writer counted them.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) n_words: u64,
    pub(super) n_texts: u64,
    pub(super) n_groups: u64,
    pub(super) meta_len: u64,
}

impl Header {
    fn new(key: u128, counts: Counts, sums: &[u64]) -> Self {
        let Counts { n_words, n_texts, n_groups, meta_len } = counts;
        let mut header = Header {
            magic: MAGIC,
            version: VERSION,
            byte_order: BYTE_ORDER,
            key: split_key(key),
            n_words,
            n_texts,
            n_groups,
            meta_len,
            sums_hash: xxh3_64(bytemuck::cast_slice(sums)),
            header_hash: 0,
        };
        header.header_hash = header.hash();
        header
    }

    fn hash(&self) -> u64 {
        let bytes = bytemuck::bytes_of(self);
        xxh3_64(&bytes[..bytes.len() - size_of::<u64>()])
    }

    fn is_valid(&self, key: u128) -> bool {
        let expected = (MAGIC, VERSION, BYTE_ORDER, split_key(key), self.hash());
        (self.magic, self.version, self.byte_order, self.key, self.header_hash) == expected
    }
}

fn split_key(key: u128) -> [u64; 2] {
    [(key >> 64) as u64, key as u64]
}

/// Byte ranges of the sections.
struct Sections {
    words: Range<usize>,
    texts: Range<usize>,
    groups: Range<usize>,
    meta: Range<usize>,
    sums: Range<usize>,
}

impl Sections {
    /// `None` if a corrupt header asks for more than a machine can address.
    fn of(header: &Header) -> Option<Self> {
        let section = |from: usize, count: u64, size: usize| -> Option<Range<usize>> {
            let len = usize::try_from(count).ok()?.checked_mul(size)?;
            Some(from..from.checked_add(len)?)
        };
        let align = |at: usize| at.checked_next_multiple_of(8);
        let words = section(HEADER_LEN, header.n_words, size_of::<u32>())?;
        let texts = section(align(words.end)?, header.n_texts, size_of::<TextRecord>())?;
        let groups = section(texts.end, header.n_groups.checked_add(1)?, size_of::<GroupRecord>())?;
        let meta = section(groups.end, header.meta_len, 1)?;
        let end = align(meta.end)?;
        let sums = section(end, (end - HEADER_LEN).div_ceil(BLOCK_LEN) as u64, size_of::<u64>())?;
        Some(Sections { words, texts, groups, meta, sums })
    }
}

/// Writes the blocks after the header and keeps their checksums.
pub(super) struct BlockWriter<'a> {
    file: &'a File,
    block: Vec<u8>,
    sums: Vec<u64>,
    n_bytes: u64,
}

impl<'a> BlockWriter<'a> {
    pub(super) fn new(mut file: &'a File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
        Ok(BlockWriter { file, block: Vec::with_capacity(BLOCK_LEN), sums: Vec::new(), n_bytes: 0 })
    }

    /// Pads with zeros to a multiple of `align` bytes, a divisor of 8.
    pub(super) fn align(&mut self, align: u64) -> io::Result<()> {
        let n_zeros = self.n_bytes.next_multiple_of(align) - self.n_bytes;
        self.write_all(&[0; 8][..n_zeros as usize])
    }

    /// Adds the checksums and the header, and waits until all of it is on the disk.
    pub(super) fn finish(mut self, key: u128, counts: Counts) -> io::Result<()> {
        self.align(8)?;
        self.end_block()?;
        let mut file = self.file;
        file.write_all(bytemuck::cast_slice(&self.sums))?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytemuck::bytes_of(&Header::new(key, counts, &self.sums)))?;
        file.sync_all()
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.sums.push(xxh3_64(&self.block));
            self.file.write_all(&self.block)?;
            self.block.clear();
        }
        Ok(())
    }
}

impl Write for BlockWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_taken = bytes.len().min(BLOCK_LEN - self.block.len());
        self.block.extend_from_slice(&bytes[..n_taken]);
        self.n_bytes += n_taken as u64;
        if self.block.len() == BLOCK_LEN {
            self.end_block()?;
        }
        Ok(n_taken)
    }

    /// Does nothing: a block is written when it is full or the file is finished.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A valid cache file in memory.
pub(super) struct MappedFile {
    map: Mapped,
    sections: Sections,
}

impl MappedFile {
    /// Maps and checks the whole file at `path`; `None` if it is anything but a file that a writer finished for `key`.
    pub(super) fn open(file: &File, path: &Path, key: u128) -> io::Result<Option<Self>> {
        if file.metadata()?.len() < HEADER_LEN as u64 {
            return Ok(None);
        }
        let map = Mapped::new(file, path)?;
        let header: Header = *bytemuck::from_bytes(&map[..size_of::<Header>()]);
        let is_padded = map[size_of::<Header>()..HEADER_LEN].iter().all(|byte| *byte == 0);
        if !header.is_valid(key) || !is_padded {
            return Ok(None);
        }
        let Some(sections) = Sections::of(&header).filter(|sections| sections.sums.end == map.len()) else {
            return Ok(None);
        };
        let sums_bytes = &map[sections.sums.clone()];
        let sums: &[u64] = bytemuck::cast_slice(sums_bytes);
        let blocks = map[HEADER_LEN..sections.sums.start].par_chunks(BLOCK_LEN);
        let is_whole = xxh3_64(sums_bytes) == header.sums_hash
            && blocks.zip(sums.par_iter()).all(|(block, sum)| xxh3_64(block) == *sum);
        Ok(is_whole.then_some(MappedFile { map, sections }))
    }

    pub(super) fn words(&self) -> &[u32] {
        bytemuck::cast_slice(&self.map[self.sections.words.clone()])
    }

    pub(super) fn texts(&self) -> &[TextRecord] {
        bytemuck::cast_slice(&self.map[self.sections.texts.clone()])
    }

    /// Group records: one more than there are groups.
    pub(super) fn groups(&self) -> &[GroupRecord] {
        bytemuck::cast_slice(&self.map[self.sections.groups.clone()])
    }

    pub(super) fn meta(&self) -> &[u8] {
        &self.map[self.sections.meta.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two blocks and a part, so that every kind of byte is covered: header, full block, last block, sums.
    fn write_file(key: u128) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let words: Vec<u32> = (0..600_000).collect();
        let mut out = BlockWriter::new(&file).unwrap();
        out.write_all(bytemuck::cast_slice(&words)).unwrap();
        out.align(8).unwrap();
        out.write_all(bytemuck::bytes_of(&GroupRecord::zeroed())).unwrap();
        out.write_all(b"{}").unwrap();
        out.finish(key, Counts { n_words: 600_000, n_texts: 0, n_groups: 0, meta_len: 2 }).unwrap();
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        bytes
    }

    fn opens(bytes: &[u8], key: u128) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        MappedFile::open(&file, Path::new("test"), key).unwrap().is_some()
    }

    #[test]
    fn only_the_whole_file_opens() {
        let bytes = write_file(7);
        assert!(opens(&bytes, 7));
        assert!(!opens(&bytes, 8), "another key");
        for len in [0, 1, 100, HEADER_LEN, HEADER_LEN + 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(!opens(&bytes[..len], 7), "cut to {len}");
        }
        assert!(!opens(&[bytes.as_slice(), &[0]].concat(), 7), "one byte more");
        let header_len = size_of::<Header>();
        let in_header = [0, 8, 12, 16, 40, header_len - 1, header_len, HEADER_LEN - 1];
        let behind = [HEADER_LEN, HEADER_LEN + BLOCK_LEN, bytes.len() - 30, bytes.len() - 1];
        for at in in_header.into_iter().chain(behind) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(!opens(&flipped, 7), "bit flipped in byte {at}");
        }
    }
}
