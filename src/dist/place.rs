//! Which of several processes this one is, from what its launcher has put into the environment.
//!
//! | launcher | rank, size, rank and size on this machine |
//! |---|---|
//! | hbt's own | `HBT_RANK`, `HBT_WORLD_SIZE`, `HBT_LOCAL_RANK`, `HBT_LOCAL_WORLD_SIZE` |
//! | Open MPI's `mpirun` | `OMPI_COMM_WORLD_RANK`, `_SIZE`, `_LOCAL_RANK`, `_LOCAL_SIZE` |
//! | `mpirun` of MPICH and Intel MPI | `PMI_RANK`, `PMI_SIZE`, `MPI_LOCALRANKID`, `MPI_LOCALNRANKS` |
//! | torchrun | `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE` |
//! | `srun` | `SLURM_PROCID`, `SLURM_STEP_NUM_TASKS`, `SLURM_LOCALID`, and `SLURM_STEP_TASKS_PER_NODE` at `SLURM_NODEID` |
//!
//! The first that says anything counts, in this order: an `mpirun` inside a job of SLURM leaves the variables of both. If it
//! says only a part, that is an error, as it would be half a world. SLURM is asked only within a step, which `srun` begins:
//! a batch script has `SLURM_PROCID=0` and `SLURM_NTASKS=4`, too, and is one process.

use crate::{Error, Result};
use std::fmt;

/// Who started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Nobody: there is one process.
    Alone,
    /// `hbt train --devices N`
    Own,
    /// Open MPI's `mpirun`
    OpenMpi,
    /// `mpirun` of MPICH, Intel MPI and others that speak PMI
    Pmi,
    /// PyTorch's `torchrun`
    Torchrun,
    /// SLURM's `srun`
    Slurm,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Launcher::Alone => "no launcher",
            Launcher::Own => "hbt's launcher",
            Launcher::OpenMpi => "Open MPI's mpirun",
            Launcher::Pmi => "MPICH's mpirun",
            Launcher::Torchrun => "torchrun",
            Launcher::Slurm => "srun",
        })
    }
}

/// A process among those of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes, at least 1.
    pub size: usize,
    /// Number of this process among those on its machine, from 0.
    pub local_rank: usize,
    /// Number of processes on this machine, at least 1 and at most `size`.
    pub local_size: usize,
    /// Who started them.
    pub launcher: Launcher,
}

/// Variables for one number: the first that is set counts, and the first is named where none is.
type Names = &'static [&'static str];

/// Variables of a launcher: rank, size, local rank, local size.
struct Source {
    launcher: Launcher,
    names: [Names; 4],
}

/// All but SLURM, the first to be asked first.
const SOURCES: [Source; 4] = [
    Source {
        launcher: Launcher::Own,
        names: [&["HBT_RANK"], &["HBT_WORLD_SIZE"], &["HBT_LOCAL_RANK"], &["HBT_LOCAL_WORLD_SIZE"]],
    },
    Source {
        launcher: Launcher::OpenMpi,
        names: [
            &["OMPI_COMM_WORLD_RANK"],
            &["OMPI_COMM_WORLD_SIZE"],
            &["OMPI_COMM_WORLD_LOCAL_RANK"],
            &["OMPI_COMM_WORLD_LOCAL_SIZE"],
        ],
    },
    Source {
        launcher: Launcher::Pmi,
        // The second names are Cray's.
        names: [
            &["PMI_RANK"],
            &["PMI_SIZE"],
            &["MPI_LOCALRANKID", "PMI_LOCAL_RANK"],
            &["MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"],
        ],
    },
    Source {
        launcher: Launcher::Torchrun,
        names: [&["RANK"], &["WORLD_SIZE"], &["LOCAL_RANK"], &["LOCAL_WORLD_SIZE"]],
    },
];

/// Steps of SLURM that no `srun` has begun: a batch script, an interactive shell, what is beside the job
/// (`SLURM_BATCH_SCRIPT` and the like in `slurm.h`).
const FIRST_STEP_WITHOUT_SRUN: u64 = 0xffff_fff0;

impl Place {
    /// The place of a process that is alone.
    pub const ALONE: Place = Place { rank: 0, size: 1, local_rank: 0, local_size: 1, launcher: Launcher::Alone };

    /// The place of this process.
    ///
    /// # Errors
    /// Those of [`Place::of`].
    pub fn current() -> Result<Self> {
        Place::of(&|name| std::env::var(name).ok())
    }

    /// The place of a process with these variables. An empty variable counts as none.
    ///
    /// # Errors
    /// If a launcher says a part only, or says what cannot be.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let variables = Variables { variable };
        for Source { launcher, names } in &SOURCES {
            // `srun --mpi=pmi2` says rank and size as MPICH does, and the rest as SLURM.
            let is_step_of_slurm = *launcher == Launcher::Pmi
                && names[2..].iter().all(|names| variables.first(names).is_none())
                && variables.slurm_step().is_some();
            if names.iter().all(|names| variables.first(names).is_none()) || is_step_of_slurm {
                continue;
            }
            let number = |names: Names| variables.number(*launcher, names);
            let [rank, size, local_rank, local_size] = *names;
            return Place {
                rank: number(rank)?,
                size: number(size)?,
                local_rank: number(local_rank)?,
                local_size: number(local_size)?,
                launcher: *launcher,
            }
            .checked(names.map(|names| variables.name(names)));
        }
        if variables.slurm_step().is_some() { variables.slurm() } else { Ok(Place::ALONE) }
    }

    /// This place, if there is such; `names` are the variables that it was read from.
    fn checked(self, [rank, size, local_rank, local_size]: [&str; 4]) -> Result<Self> {
        let Place { launcher, .. } = self;
        let below = |(low, low_name): (usize, &str), (high, high_name): (usize, &str)| {
            let message = format!("{launcher} set {low_name}={low}, but {high_name}={high}: one of the two is wrong");
            if low < high { Ok(()) } else { Err(Error::other(message)) }
        };
        below((self.rank, rank), (self.size, size))?;
        below((self.local_rank, local_rank), (self.local_size, local_size))?;
        if self.local_size > self.size {
            let Place { local_size: local, size: all, .. } = self;
            let message = format!("{launcher} set {local_size}={local}, but {size}={all}: one of the two is wrong");
            return Err(Error::other(message));
        }
        Ok(self)
    }
}

/// The environment.
struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    fn value(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.trim().is_empty())
    }

    fn first(&self, names: Names) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, self.value(name)?)))
    }

    /// The one of `names` that is set, or else the first.
    fn name(&self, names: Names) -> &'static str {
        self.first(names).map_or(names[0], |(name, _)| name)
    }

    fn number(&self, launcher: Launcher, names: Names) -> Result<usize> {
        let (name, value) = self.first(names).ok_or_else(|| missing(launcher, names[0]))?;
        let not_a_number = || Error::other(format!("{launcher} set {name}={value}, which is no number from 0"));
        value.trim().parse().map_err(|_| not_a_number())
    }

    /// The step of SLURM that this process belongs to.
    fn slurm_step(&self) -> Option<String> {
        let step = self.value("SLURM_STEP_ID").or_else(|| self.value("SLURM_STEPID"))?;
        let has_no_srun = step.trim().parse().is_ok_and(|step: u64| step >= FIRST_STEP_WITHOUT_SRUN);
        (!has_no_srun).then_some(step)
    }

    fn slurm(&self) -> Result<Place> {
        let launcher = Launcher::Slurm;
        let names: [Names; 3] = [&["SLURM_PROCID"], &["SLURM_STEP_NUM_TASKS"], &["SLURM_LOCALID"]];
        let [rank, size, local_rank] = names.map(|names| self.number(launcher, names));
        let tasks = "SLURM_STEP_TASKS_PER_NODE";
        let per_node = self.value(tasks).ok_or_else(|| missing(launcher, tasks))?;
        let node = self.number(launcher, &["SLURM_NODEID"])?;
        let local_size = tasks_of_node(&per_node, node).ok_or_else(|| {
            Error::other(format!(
                "srun set {tasks}={per_node} and SLURM_NODEID={node}: no number of tasks for that node"
            ))
        })?;
        let place = Place { rank: rank?, size: size?, local_rank: local_rank?, local_size, launcher };
        place.checked([names[0][0], names[1][0], names[2][0], tasks])
    }
}

fn missing(launcher: Launcher, name: &str) -> Error {
    Error::other(format!(
        "{launcher} started this process, it seems, but {name} is not set: set it, or for a process of its own unset the \
         variables of {launcher}"
    ))
}

/// Number of tasks on a node, from SLURM's list: `2(x3),1` is two on each of three nodes, then one.
fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut nodes_before = 0_usize;
    for part in list.trim().split(',') {
        let (tasks, times) = match part.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        let tasks = tasks.parse().ok()?;
        nodes_before = nodes_before.checked_add(times)?;
        if node < nodes_before {
            return Some(tasks);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of a process with the variables of `list`, each `NAME=value`.
    fn place(list: &str) -> Result<Place> {
        let find = |name: &str| {
            let of_name = |pair: &str| pair.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            list.split_whitespace().find_map(of_name)
        };
        Place::of(&find)
    }

    fn numbers(list: &str) -> ([usize; 4], Launcher) {
        let Place { rank, size, local_rank, local_size, launcher } = place(list).unwrap();
        ([rank, size, local_rank, local_size], launcher)
    }

    fn refusal(list: &str) -> String {
        place(list).unwrap_err().to_string()
    }

    const OMPI: &str = "OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_LOCAL_RANK=1 \
                        OMPI_COMM_WORLD_LOCAL_SIZE=4 PMIX_RANK=5";
    const TORCHRUN: &str = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=29500";
    const SRUN: &str = "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4 \
                        SLURM_LOCALID=2 SLURM_NODEID=0 SLURM_STEP_TASKS_PER_NODE=3,1";
    const HYDRA: &str = "PMI_RANK=1 PMI_SIZE=2 PMI_FD=9 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2";
    const OWN: &str = "HBT_RANK=0 HBT_WORLD_SIZE=2 HBT_LOCAL_RANK=0 HBT_LOCAL_WORLD_SIZE=2";

    #[test]
    fn each_launcher_says_it_in_its_own_words() {
        assert_eq!(numbers(OMPI), ([5, 8, 1, 4], Launcher::OpenMpi));
        assert_eq!(numbers(TORCHRUN), ([3, 4, 1, 2], Launcher::Torchrun));
        assert_eq!(numbers(SRUN), ([2, 4, 2, 3], Launcher::Slurm));
        assert_eq!(numbers(HYDRA), ([1, 2, 1, 2], Launcher::Pmi));
        assert_eq!(numbers(OWN), ([0, 2, 0, 2], Launcher::Own));
        let cray = "PMI_RANK=6 PMI_SIZE=8 PMI_LOCAL_RANK=2 PMI_LOCAL_SIZE=4";
        assert_eq!(numbers(cray), ([6, 8, 2, 4], Launcher::Pmi));
        assert_eq!(place("PATH=/bin HBT_RANK=").unwrap(), Place::ALONE);
    }

    #[test]
    fn the_first_in_the_order_counts() {
        assert_eq!(numbers(&format!("{SRUN} {TORCHRUN} {HYDRA} {OMPI} {OWN}")).1, Launcher::Own);
        assert_eq!(numbers(&format!("{SRUN} {TORCHRUN} {HYDRA} {OMPI}")).1, Launcher::OpenMpi);
        assert_eq!(numbers(&format!("{SRUN} {TORCHRUN} {HYDRA}")).1, Launcher::Pmi);
        assert_eq!(numbers(&format!("{SRUN} {TORCHRUN}")).1, Launcher::Torchrun);
    }

    #[test]
    fn only_a_step_of_slurm_has_ranks() {
        let batch = "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_NODEID=0";
        assert_eq!(place(batch).unwrap(), Place::ALONE);
        let interactive = format!("{batch} SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1");
        assert_eq!(place(&interactive).unwrap(), Place::ALONE);
        // The task on the second node, and one of `srun --mpi=pmi2`.
        let other = "SLURM_STEP_ID=1 SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=4 SLURM_LOCALID=0 SLURM_NODEID=1 \
                     SLURM_STEP_TASKS_PER_NODE=3,1";
        assert_eq!(numbers(other), ([3, 4, 0, 1], Launcher::Slurm));
        assert_eq!(numbers(&format!("{SRUN} PMI_RANK=2 PMI_SIZE=4 PMI_FD=5")), ([2, 4, 2, 3], Launcher::Slurm));
    }

    #[test]
    fn half_a_set_names_what_is_missing() {
        for (list, missing) in [
            ("HBT_RANK=0", "HBT_WORLD_SIZE"),
            ("HBT_WORLD_SIZE=2", "HBT_RANK"),
            ("RANK=0 WORLD_SIZE=2", "LOCAL_RANK"),
            ("RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", "LOCAL_WORLD_SIZE"),
            ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_RANK=0", "OMPI_COMM_WORLD_SIZE"),
            ("PMI_RANK=0 PMI_SIZE=2", "MPI_LOCALRANKID"),
            ("PMI_RANK=0 PMI_SIZE=2 MPI_LOCALRANKID=0", "MPI_LOCALNRANKS"),
            ("SLURM_STEP_ID=0 SLURM_PROCID=0", "SLURM_STEP_TASKS_PER_NODE"),
            ("SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_STEP_TASKS_PER_NODE=1", "SLURM_NODEID"),
            ("SLURM_STEP_ID=0 SLURM_PROCID=0 SLURM_STEP_TASKS_PER_NODE=1 SLURM_NODEID=0", "SLURM_STEP_NUM_TASKS"),
        ] {
            let refusal = refusal(list);
            assert!(refusal.contains(&format!(" {missing} is not set")), "{list}: {refusal}");
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let own = |values: [&str; 4]| {
            let [rank, size, local_rank, local_size] = values;
            format!(
                "HBT_RANK={rank} HBT_WORLD_SIZE={size} HBT_LOCAL_RANK={local_rank} HBT_LOCAL_WORLD_SIZE={local_size}"
            )
        };
        for (values, expected) in [
            (["2", "2", "0", "1"], "HBT_RANK=2, but HBT_WORLD_SIZE=2"),
            (["0", "0", "0", "1"], "HBT_RANK=0, but HBT_WORLD_SIZE=0"),
            (["0", "2", "1", "1"], "HBT_LOCAL_RANK=1, but HBT_LOCAL_WORLD_SIZE=1"),
            (["0", "2", "0", "3"], "HBT_LOCAL_WORLD_SIZE=3, but HBT_WORLD_SIZE=2"),
            (["-1", "2", "0", "1"], "HBT_RANK=-1, which is no number"),
            (["0", "two", "0", "1"], "HBT_WORLD_SIZE=two, which is no number"),
            (["0", "99999999999999999999999", "0", "1"], "which is no number"),
        ] {
            let refusal = refusal(&own(values));
            assert!(refusal.contains(expected), "{values:?}: {refusal}");
        }
        for (tasks, node) in [("3,1", 2), ("2(x3", 0), ("many", 0), ("2(x18446744073709551615),2(x2)", 1 << 30)] {
            let srun = format!("SLURM_STEP_ID=0 SLURM_NODEID={node} SLURM_STEP_TASKS_PER_NODE={tasks}");
            let of_tasks = place(&srun).is_err_and(|e| !e.to_string().contains("no number of tasks"));
            // The last list has that node, and lacks only the rest.
            assert_eq!(of_tasks, tasks.len() > 20, "{tasks}");
        }
    }

    #[test]
    fn lists_of_tasks() {
        let tasks = |list: &str| (0..5).map(|node| tasks_of_node(list, node)).collect::<Vec<_>>();
        assert_eq!(tasks("2(x3),1"), [Some(2), Some(2), Some(2), Some(1), None]);
        assert_eq!(tasks("4"), [Some(4), None, None, None, None]);
        assert_eq!(tasks("1,2(x2),3"), [Some(1), Some(2), Some(2), Some(3), None]);
    }
}
