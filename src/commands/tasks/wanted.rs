//! What `--task` asks for.

use hbt::config::Auto;
use hbt::eval::mteb::table::{self, TaskRow};
use hbt::eval::tasks::{self, Task, retrieval};
use hbt::progress::say;
use hbt::{Error, Result};
use std::borrow::Cow;

/// A task that was asked for.
pub enum Wanted {
    /// What `eval_task` is to be: a task that training can evaluate on, too, or the first that recognises the data.
    Own(Option<Auto<&'static Task>>),
    /// A directory.
    Directory,
    /// One of mteb's, and the subsets that a benchmark takes of it, if not all.
    Row(&'static TaskRow, Option<Cow<'static, [String]>>),
}

impl Wanted {
    /// The tasks in a list of names, each once; those of a benchmark that hbt cannot run are said.
    ///
    /// # Errors
    /// No name; an unknown one; one that stands twice.
    pub fn parse(list: &str) -> Result<Vec<Wanted>> {
        let names = table::split_names(list);
        if names.is_empty() {
            return Err(Error::usage(format!("--task {list:?} names no task; hbt eval --list shows them")));
        }
        let mut wanted = Vec::new();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(Error::usage(format!("--task names {name} twice; name it once")));
            }
            if let Some(task) = tasks::named(name) {
                wanted.push(Wanted::of(Some(Auto::Of(task))));
            } else if let Some(row) = table::task(name) {
                add_row(&mut wanted, row, None);
            } else if let Some(benchmark) = table::benchmark(name) {
                benchmark.runnable().for_each(|(member, row)| add_row(&mut wanted, row, member.subsets.as_deref()));
                let others: Vec<&str> = benchmark.others().map(|member| member.name.as_str()).collect();
                if !others.is_empty() {
                    say(&format!("not of {name}, since hbt cannot run them: {}", others.join(", ")));
                    say(&format!("mteb does, as in: mteb run -m MODEL -t {}", others.join(" ")));
                }
            } else {
                return Err(unknown(name));
            }
        }
        Ok(wanted)
    }

    /// What `eval_task` names.
    pub fn of(task: Option<Auto<&'static Task>>) -> Wanted {
        match task {
            Some(Auto::Of(task)) if *task == retrieval::TASK => Wanted::Directory,
            task => Wanted::Own(task),
        }
    }
}

/// Adds one of mteb's tasks, or what benchmarks take of it beside what is there.
fn add_row(wanted: &mut Vec<Wanted>, row: &'static TaskRow, subsets: Option<&'static [String]>) {
    for there in wanted.iter_mut() {
        if let Wanted::Row(same, taken) = there
            && *same == row
        {
            let both = taken.take().zip(subsets).map(|(taken, more)| {
                let new = more.iter().filter(|subset| !taken.contains(subset));
                Cow::Owned(taken.iter().chain(new).cloned().collect())
            });
            *taken = both;
            return;
        }
    }
    wanted.push(Wanted::Row(row, subsets.map(Cow::Borrowed)));
}

impl Wanted {
    /// What `eval_task` is to be, if it is such a task.
    pub fn own(&self) -> Option<Option<Auto<&'static Task>>> {
        match self {
            Wanted::Own(task) => Some(*task),
            Wanted::Directory | Wanted::Row(..) => None,
        }
    }
}

fn unknown(name: &str) -> Error {
    let own = tasks::names();
    let nearest = table::nearest(name).map_or(String::new(), |nearest| format!(" did you mean {nearest}?"));
    Error::usage(format!("there is no task {name:?};{nearest} besides mteb's (hbt eval --list) there are {own}"))
}
