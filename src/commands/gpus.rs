//! The GPU that each process of a machine has, and hbt's own launcher of a process for each.

use super::device::resolve;
use super::trace::{INTERRUPTED, interrupted};
use hbt::backend::cuda::{self, CudaDevice, CudaProbe};
use hbt::config::{Auto, Config, Device, Draft};
use hbt::dist::Place;
use hbt::dist::launch::{Copies, copies};
use hbt::progress::say;
use hbt::train::Ranks;
use hbt::{Error, Result, signals};
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The device that a command's configuration asks for, as far as it can be read: what is wrong with it is said elsewhere.
pub fn asked_for(draft: &Result<Draft>) -> Auto<Device> {
    draft.as_ref().map_or(Auto::Auto, |draft| draft.so_far().device)
}

/// All GPUs that this process sees.
fn visible() -> &'static [CudaDevice] {
    static VISIBLE: OnceLock<Vec<CudaDevice>> = OnceLock::new();
    VISIBLE.get_or_init(|| match cuda::probe() {
        CudaProbe::Driver { devices, .. } => devices,
        _ => Vec::new(),
    })
}

/// The GPU that a process has among `n` that it sees: the one of its number on its machine, or the only one, which a launcher
/// may have picked for it. Where ranks may share GPUs, they are dealt out in turn.
fn ordinal_of(place: &Place, n: usize, may_share: bool) -> usize {
    match n {
        0 | 1 => 0,
        _ if may_share => place.local_rank % n,
        _ => place.local_rank,
    }
}

/// Number of the GPU that this process computes on, among those that CUDA_VISIBLE_DEVICES leaves it.
pub fn ordinal() -> usize {
    // Who is one of several is said, or refused, elsewhere.
    let place = Place::current().unwrap_or(Place::ALONE);
    if place.local_size == 1 { 0 } else { ordinal_of(&place, visible().len(), cuda::may_share_gpus()) }
}

/// Number of processes of this machine that compute on this one's GPU.
pub fn n_sharers() -> u64 {
    let place = Place::current().unwrap_or(Place::ALONE);
    if place.local_size == 1 || !cuda::may_share_gpus() {
        return 1;
    }
    let of_rank = |local_rank| ordinal_of(&Place { local_rank, ..place }, visible().len(), true);
    (0..place.local_size).filter(|&rank| of_rank(rank) == of_rank(place.local_rank)).count() as u64
}

/// What other ranks are to know of this one's device: its name for people, and what tells it from all others, where no two may
/// have the same.
pub fn introduced(device: Device) -> (String, Option<String>) {
    if device == Device::Cpu {
        return ("cpu".to_owned(), None);
    }
    let uuid = visible().get(ordinal()).map(|gpu| gpu.uuid.clone());
    (format!("GPU {}", ordinal()), uuid.filter(|_| !cuda::may_share_gpus()))
}

/// Fails unless all ranks can exchange, and by the same, before anything is done.
///
/// # Errors
/// No NCCL on GPUs, or too old a one; ranks of other devices or with other versions of it.
pub fn require_exchange(ranks: &Ranks, config: &Config) -> Result<()> {
    if ranks.is_alone() {
        return Ok(());
    }
    if resolve(config.device) == Device::Cpu {
        return ranks.require_same(WAY, "processors");
    }
    let found = cuda::require_nccl().map_err(|why| Error::config("device", format!("{why}, or set device = \"cpu\"")));
    let ((major, minor), nccl) = found?;
    ranks.require_same(WAY, &format!("GPUs, by NCCL {major}.{minor}"))?;
    say(&format!("GPUs exchange by NCCL {nccl}"));
    Ok(())
}

/// What messages call what ranks exchange by.
const WAY: &str = "exchange";

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs this program as `n` processes with these arguments, one for each GPU.
///
/// # Errors
/// Fewer GPUs, and those of [`copies`].
pub fn launch(n: usize, args: &[OsString]) -> Result<ExitCode> {
    let n_gpus = visible().len();
    if n > n_gpus && !cuda::may_share_gpus() {
        let gpus = if n_gpus == 1 { "is 1 GPU".to_owned() } else { format!("are {n_gpus} GPUs") };
        let message = format!(
            "{n} processes want a GPU each, and there {gpus}: lower it, look at CUDA_VISIBLE_DEVICES, or set device = \"cpu\""
        );
        return Err(Error::config("--devices", message));
    }
    signals::on_interrupt(|| {
        // The processes end in their own way; a second Ctrl-C ends them with this one.
        if STOP.swap(true, Ordering::Relaxed) {
            interrupted();
        }
    })?;
    let is_stopped = || STOP.load(Ordering::Relaxed);
    let status = copies(&Copies { n, args, variables: &[], is_stopped: &is_stopped })?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(INTERRUPTED)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hbt::dist::Launcher;

    #[test]
    fn each_process_has_a_gpu_of_its_own_where_it_sees_several() {
        let place =
            |local_rank| Place { rank: local_rank, size: 4, local_rank, local_size: 4, launcher: Launcher::Own };
        let of = |n, may_share| [0, 1, 2, 3].map(|local_rank| ordinal_of(&place(local_rank), n, may_share));
        assert_eq!(of(8, false), [0, 1, 2, 3]);
        // A launcher that shows each task the GPU that it has picked; or there is none.
        assert_eq!((of(1, false), of(0, false)), ([0; 4], [0; 4]));
        // Refused by its number where it is asked for.
        assert_eq!(of(2, false), [0, 1, 2, 3]);
        assert_eq!((of(2, true), of(1, true)), ([0, 1, 0, 1], [0; 4]));
    }
}
