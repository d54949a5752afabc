//! Exchange through rank 0, over the connections of the [`Star`]: for what is small, where there is no MPI. Everything goes to
//! rank 0, and from there to all.

use super::Star;
use super::link::Kind;
use super::wire::Wire;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Exchange through rank 0.
pub struct Relay {
    star: Arc<Star>,
    /// For each link, what comes over it.
    inboxes: Vec<Receiver<Vec<u8>>>,
}

const U64: usize = size_of::<u64>();

/// Messages end to end, behind their lengths.
fn join<'a>(messages: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let lens = messages.clone().flat_map(|message| (message.len() as u64).to_le_bytes());
    lens.chain(messages.clone().flatten().copied()).collect()
}

/// The `n` messages that were joined; `None` if they were not.
fn split(bytes: &[u8], n: usize) -> Option<Vec<&[u8]>> {
    let (lens, mut rest) = bytes.split_at_checked(n.checked_mul(U64)?)?;
    let lens = lens.as_chunks::<U64>().0.iter().map(|len| usize::try_from(u64::from_le_bytes(*len)).ok());
    let messages: Option<Vec<_>> = lens.map(|len| rest.split_off(..len?)).collect();
    messages.filter(|_| rest.is_empty())
}

impl Relay {
    pub(super) fn new(star: Arc<Star>, inboxes: Vec<Receiver<Vec<u8>>>) -> Self {
        Relay { star, inboxes }
    }

    /// What all ranks have as `mine`, in their order, joined.
    fn gather(&self, mine: &[u8]) -> Result<Vec<u8>> {
        let Star { links, rank, roster } = &*self.star;
        // Whoever watches ends the process.
        let gone = || Error::other("a rank is gone: see what it says");
        if *rank > 0 {
            links[0].send(Kind::Message, mine).map_err(|_| gone())?;
            return self.inboxes[0].recv().map_err(|_| gone());
        }
        let received = self.inboxes.iter().map(|inbox| inbox.recv().map_err(|_| gone()));
        let received: Vec<Vec<u8>> = received.collect::<Result<_>>()?;
        debug_assert_eq!(received.len() + 1, roster.len());
        let all = join([mine].into_iter().chain(received.iter().map(Vec::as_slice)));
        links.iter().try_for_each(|link| link.send(Kind::Message, &all)).map_err(|_| gone())?;
        Ok(all)
    }

    fn size(&self) -> usize {
        self.star.roster.len()
    }
}

/// An error where ranks do not make the same calls.
pub(super) fn confused() -> Error {
    Error::other("ranks exchange messages that do not fit together; this is a fault of hbt's: please report it")
}

/// Writes parts end to end, if they have these lengths.
fn write(parts: &[&[u8]], lens: &[usize], bytes: &mut [u8]) -> Result<()> {
    if parts.iter().map(|part| part.len()).ne(lens.iter().copied()) {
        return Err(confused());
    }
    bytes.copy_from_slice(&parts.concat());
    Ok(())
}

impl Wire for Relay {
    fn all_to_all(
        &mut self,
        send: &[u8],
        send_lens: &[usize],
        received: &mut [u8],
        received_lens: &[usize],
    ) -> Result<()> {
        let mut rest = send;
        let parts: Vec<&[u8]> = send_lens.iter().map(|&len| rest.split_off(..len).unwrap_or_default()).collect();
        let all = self.gather(&join(parts.iter().copied()))?;
        let (size, rank) = (self.size(), self.star.rank);
        let of_ranks = split(&all, size).ok_or_else(confused)?;
        let for_this = of_ranks.into_iter().map(|of_rank| Some(split(of_rank, size)?[rank]));
        let for_this: Vec<&[u8]> = for_this.collect::<Option<_>>().ok_or_else(confused)?;
        write(&for_this, received_lens, received)
    }

    fn all_gather(&mut self, mine: &[u8], received: &mut [u8], lens: &[usize]) -> Result<()> {
        let all = self.gather(mine)?;
        write(&split(&all, self.size()).ok_or_else(confused)?, lens, received)
    }

    fn broadcast(&mut self, root: usize, bytes: &mut [u8]) -> Result<()> {
        let mine = if self.star.rank == root { &*bytes } else { &[] };
        let all = self.gather(mine)?;
        let messages = split(&all, self.size()).ok_or_else(confused)?;
        write(&messages[root..=root], &[bytes.len()], bytes)
    }

    fn barrier(&mut self) -> Result<()> {
        self.gather(&[]).map(drop)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self, status: i32) -> ! {
        // The others notice.
        std::process::exit(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_messages_come_apart() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three", b""];
        let joined = join(messages.into_iter());
        assert_eq!(split(&joined, 4).unwrap(), messages);
        assert_eq!(split(&joined, 5), None);
        assert_eq!(split(&joined[..joined.len() - 1], 4), None);
        assert_eq!(split(&[joined, vec![0]].concat(), 4), None);
        assert_eq!(split(&[0xff; 8], 1), None);
        assert_eq!(split(&[], usize::MAX), None);
    }
}
