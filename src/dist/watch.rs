//! Sees to it that no rank outlives another: all are connected to rank 0, tell it every second how far they are, and end as
//! soon as one is gone.
//!
//! | what happens | how it is noticed | when |
//! |---|---|---|
//! | a process ends or is killed | its connection ends | at once |
//! | it is stopped, or its host or network is gone | nothing comes from it | after [`Settings::silence`] |
//! | it is alive and gets no further | its step and count of work stay | after [`Settings::stall`] |
//! | it has an error | it says so ([`Watch::fail`]) | at once |
//!
//! Rank 0 then prints one line that names the rank, its host and device, and the step, and tells all. Each ends by `_exit`
//! from the thread that heard of it, as the main thread may be inside a library for ever, where nothing can be aborted.
//! One that is stopped cannot end itself: another on its machine kills it. If it is rank 0 that is gone, the first
//! other rank of each machine prints the line.

use super::hello::Hello;
use super::link::{Kind, Link};
use super::{Relay, Star};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);
/// How long a rank with an error waits to be ended by rank 0, which says it.
const ANSWER: Duration = Duration::from_secs(3);
/// How long rank 0 lives on after its last word, so that it arrives.
const LAST_WORD: Duration = Duration::from_millis(200);

/// How far a rank is. Whoever works on something long counts it on.
#[derive(Debug, Default)]
pub struct Progress {
    step: AtomicU64,
    work: AtomicU64,
    /// Milliseconds after which it should have got further; 0 leaves that to [`Settings::stall`].
    stall: AtomicU64,
}

impl Progress {
    /// The rank is at this step.
    pub fn begin_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// The rank has done something, be it an exchange or a window of an evaluation.
    pub fn advance(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
    }

    /// A rank that gets no further for so long hangs, from now on.
    pub fn expect_within(&self, stall: Duration) {
        self.stall.store(stall.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn now(&self) -> [u64; 2] {
        [&self.step, &self.work].map(|number| number.load(Ordering::Relaxed))
    }
}

/// What is called on the way out: with the line to print, or nothing if another rank prints it.
pub type Leave = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// When a rank counts as gone.
pub struct Settings {
    /// Nothing has come from it for that long: at least a few seconds.
    pub silence: Duration,
    /// It has got no further for that long, unless [`Progress::expect_within`] says otherwise.
    pub stall: Duration,
    /// Called before the process ends.
    pub leave: Leave,
}

/// What is known of a rank at the other end of a link.
struct Heard {
    at: Instant,
    progress: [u64; 2],
    /// When its progress was last another.
    advanced: Instant,
    has_ended: bool,
}

struct Shared {
    star: Arc<Star>,
    settings: Settings,
    progress: Arc<Progress>,
    /// For each link.
    heard: Mutex<Vec<Heard>>,
    is_over: AtomicBool,
    has_finished: AtomicBool,
}

/// Watches until [`Watch::finish`].
pub struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    /// Begins to watch all ranks, of which this one has come as far as `progress` says.
    pub fn begin(star: Star, progress: Arc<Progress>, settings: Settings) -> (Self, Relay) {
        let now = Instant::now();
        let heard = star.links.iter().map(|_| Heard { at: now, progress: [0; 2], advanced: now, has_ended: false });
        let shared = Arc::new(Shared {
            heard: Mutex::new(heard.collect()),
            star: Arc::new(star),
            settings,
            progress,
            is_over: AtomicBool::new(false),
            has_finished: AtomicBool::new(false),
        });
        let mut inboxes = Vec::new();
        for link in 0..shared.star.links.len() {
            let (sender, receiver) = channel();
            inboxes.push(receiver);
            let shared = shared.clone();
            std::thread::spawn(move || shared.listen(link, &sender));
        }
        if !inboxes.is_empty() {
            let shared = shared.clone();
            std::thread::spawn(move || shared.beat());
        }
        let relay = Relay::new(shared.star.clone(), inboxes);
        (Watch { shared }, relay)
    }

    /// Ends all ranks, because this one cannot go on. `message` is printed once, with this rank's name before it.
    pub fn fail(&self, message: &str) -> ! {
        let Shared { star, .. } = &*self.shared;
        let message = format!("{}: {message}", star.roster[star.rank].name());
        if star.rank == 0 {
            self.shared.end_all(None, &message);
        }
        // Rank 0 answers, and the thread that hears it ends this process.
        if star.links[0].send(Kind::Failed, message.as_bytes()).is_ok() {
            std::thread::sleep(ANSWER);
        }
        self.shared.leave(Some(&message))
    }

    /// Ends the watch when all ranks have come here.
    pub fn finish(self) {
        let Shared { star, heard, has_finished, .. } = &*self.shared;
        let have_all_ended = || heard.lock().unwrap_or_else(PoisonError::into_inner).iter().all(|of| of.has_ended);
        // One that is gone is noticed elsewhere.
        let say = || star.links.iter().for_each(|link| drop(link.send(Kind::End, &[])));
        if star.rank > 0 {
            say();
        }
        while !have_all_ended() {
            std::thread::sleep(POLL);
        }
        has_finished.store(true, Ordering::Release);
        if star.rank == 0 {
            say();
        }
    }
}

impl Shared {
    fn heard<T>(&self, link: usize, f: impl FnOnce(&mut Heard) -> T) -> T {
        f(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner)[link])
    }

    /// Takes what comes over a link, until the other end is gone.
    fn listen(&self, link: usize, inbox: &Sender<Vec<u8>>) {
        let peer = self.star.peer(link);
        loop {
            let received = self.star.links[link].receive(usize::MAX);
            let now = Instant::now();
            let silence = now - self.heard(link, |heard| std::mem::replace(&mut heard.at, now));
            match received {
                Ok((Kind::Beat, bytes)) => {
                    let numbers = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
                    let mut progress = [0; 2];
                    progress.iter_mut().zip(numbers).for_each(|(place, number)| *place = number);
                    self.heard(link, |heard| {
                        if heard.progress != progress {
                            (heard.progress, heard.advanced) = (progress, now);
                        }
                    });
                }
                // Nobody may be waiting for it any more.
                Ok((Kind::Message, bytes)) => drop(inbox.send(bytes)),
                Ok((Kind::End, _)) => self.heard(link, |heard| heard.has_ended = true),
                Ok((Kind::Failed, bytes)) if self.star.rank == 0 => {
                    self.end_all(None, &String::from_utf8_lossy(&bytes));
                }
                Ok((Kind::Over, bytes)) if self.star.rank > 0 => self.end_as_told(&bytes),
                Ok(_) => self.lost(link, "said what it should not", Some(peer)),
                Err(_) if self.heard(link, |heard| heard.has_ended) => return,
                // Another rank may have noticed first that it is stopped, and killed it.
                Err(_) if silence > self.settings.silence / 2 => self.lost(link, &silent_for(silence), None),
                Err(_) => self.lost(link, "is gone", None),
            }
        }
    }

    /// Gives signs of life and looks for those of others.
    fn beat(&self) {
        let mut last = Instant::now();
        let mut own = (self.progress.now(), last);
        while !self.has_finished.load(Ordering::Acquire) {
            let progress = self.progress.now().map(u64::to_le_bytes);
            // A link that is gone is noticed by its listener.
            self.star.links.iter().for_each(|link| drop(link.send(Kind::Beat, progress.as_flattened())));
            std::thread::sleep(BEAT);
            // Who has been stopped has heard nobody.
            if last.elapsed() > 3 * BEAT {
                let mut all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                all.iter_mut().for_each(|heard| heard.at = Instant::now());
            }
            last = Instant::now();
            for link in 0..self.star.links.len() {
                let silence =
                    self.heard(link, |heard| if heard.has_ended { Duration::ZERO } else { heard.at.elapsed() });
                if silence > self.settings.silence {
                    self.lost(link, &silent_for(silence), Some(self.star.peer(link)));
                }
            }
            let now = self.progress.now();
            if own.0 != now {
                own = (now, last);
            }
            // Before the first step they wait for what is done once, however long it takes.
            let stall = match self.progress.stall.load(Ordering::Relaxed) {
                0 => self.settings.stall,
                milliseconds => Duration::from_millis(milliseconds),
            };
            if self.star.rank == 0 && now[0] > 0 && own.1.elapsed() > stall {
                self.look_for_stall(stall);
            }
        }
    }

    /// Ends all if nobody else has got further for too long, either: those that wait for another in an exchange do not.
    fn look_for_stall(&self, stall: Duration) {
        let behind = {
            let all = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let all_wait = all.iter().all(|heard| heard.advanced.elapsed() > stall && !heard.has_ended);
            let others = all.iter().enumerate().map(|(link, heard)| (heard.progress, self.star.peer(link)));
            let least = others.chain([(self.progress.now(), 0)]).min();
            least.filter(|_| all_wait && !all.is_empty())
        };
        if let Some(([step, _], rank)) = behind {
            let name = self.star.roster[rank].name();
            let minutes = stall.as_secs_f64() / 60.0;
            let line = format!("{name} has got no further for {minutes} minutes, at step {step}, and the others wait");
            let advice = "look at what it does, or raise stall_minutes if it needs longer";
            self.end_all(Some(rank), &format!("{line}: {advice}"));
        }
    }

    /// Ends this process, and from rank 0 all, because the other end of a link is gone, or `stuck`.
    fn lost(&self, link: usize, how: &str, stuck: Option<usize>) -> ! {
        let peer = self.star.peer(link);
        let [step, _] = self.heard(link, |heard| heard.progress);
        let message =
            format!("{} {how}, at step {step}: see what it or its system says", self.star.roster[peer].name());
        if self.star.rank == 0 {
            self.end_all(stuck, &message);
        }
        self.only_once();
        self.kill(stuck);
        self.leave(self.speaks_without_rank_0().then_some(&message))
    }

    /// Whether this rank is its machine's first, rank 0 aside.
    fn speaks_without_rank_0(&self) -> bool {
        let Star { roster, rank, .. } = &*self.star;
        roster
            .iter()
            .skip(1)
            .find(|hello| hello.machine == roster[*rank].machine)
            .is_some_and(|hello| hello.rank == *rank)
    }

    /// Rank 0: ends all, with the one that is stuck, if one is.
    fn end_all(&self, stuck: Option<usize>, message: &str) -> ! {
        self.only_once();
        let over = stuck.map(|rank| (rank as u64).to_le_bytes());
        let over = over.as_ref().map_or(&[][..], |rank| rank);
        self.star.links.iter().for_each(|link: &Link| drop(link.send(Kind::Over, over)));
        self.kill(stuck);
        (self.settings.leave)(Some(message));
        std::thread::sleep(LAST_WORD);
        exit()
    }

    /// Ends this process, as rank 0 has said.
    fn end_as_told(&self, over: &[u8]) -> ! {
        self.only_once();
        let stuck = over.try_into().ok().map(u64::from_le_bytes).and_then(|rank| usize::try_from(rank).ok());
        self.kill(stuck);
        self.leave(None)
    }

    /// Returns on the first thread that comes here, and never on others.
    fn only_once(&self) {
        if self.is_over.swap(true, Ordering::AcqRel) {
            loop {
                std::thread::park();
            }
        }
    }

    /// Kills another rank's process if it is on this machine: one that is stopped hears nothing.
    fn kill(&self, rank: Option<usize>) {
        let Star { roster, rank: own, .. } = &*self.star;
        let is_near = |hello: &&Hello| hello.rank != *own && hello.machine == roster[*own].machine;
        #[cfg(unix)]
        if let Some(culprit) = rank.and_then(|rank| roster.get(rank)).filter(is_near) {
            use rustix::process::{Pid, Signal, kill_process};
            let pid = i32::try_from(culprit.pid).ok().and_then(Pid::from_raw);
            // It may be gone, which is as well.
            let _ = pid.map(|pid| kill_process(pid, Signal::KILL));
        }
    }

    fn leave(&self, line: Option<&str>) -> ! {
        (self.settings.leave)(line);
        exit()
    }
}

fn silent_for(silence: Duration) -> String {
    format!("has given no sign of life for {} s", silence.as_secs())
}

/// Ends the process without running anything of it: other threads may hold locks that its end would wait for.
#[allow(unsafe_code)]
fn exit() -> ! {
    #[cfg(unix)]
    // SAFETY: it takes a number.
    unsafe {
        libc::_exit(1)
    }
    #[cfg(not(unix))]
    std::process::exit(1)
}
