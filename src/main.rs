//! The `hbt` command: parse, dispatch, report.
//!
//! Exit codes: 0 for success, 1 for an error, 2 for wrong usage, 130 after Ctrl-C, a hangup or a request to terminate.

mod commands;

use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use commands::ranks::once;
use hbt::backend::cpu::Instructions;
use hbt::backend::cuda;
use hbt::cli::{Cli, Command};
use hbt::config::instead_of_option;
use hbt::{Error, Result, memory, progress, signals};

fn main() -> ExitCode {
    memory::keep_no_large_buffers();
    commands::ranks::settle_environment();
    signals::let_large_writes_fail();
    let command = Cli::try_parse().unwrap_or_else(|e| refused(&e)).command;
    let trace_file = command.trace_file().map(commands::ranks::own_file);
    // Training ends in its own way.
    let ends_at_once = !matches!(command, Command::Train(_));
    match commands::trace::traced(trace_file, ends_at_once, || run(command)) {
        Ok(code) => code,
        // A reader that has seen enough (`hbt info | head -1`) is no error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say_always(&format!("error: {}", in_full(&error)));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The exit code that an error has.
fn exit_code(error: &Error) -> u8 {
    if matches!(error, Error::Usage(_)) { WRONG_USAGE } else { 1 }
}

/// Ends with clap's message, and with the key that an unknown option is, if it is one.
fn refused(error: &clap::Error) -> ! {
    let unknown = (error.kind() == ErrorKind::UnknownArgument).then(|| error.get(ContextKind::InvalidArg)).flatten();
    if let Some(ContextValue::String(option)) = unknown
        && let Some(instead) = instead_of_option(option.trim_start_matches('-'))
    {
        progress::say_always(&format!("error: there is no option {option}; {instead}, or see --help"));
        std::process::exit(i32::from(WRONG_USAGE));
    }
    error.exit()
}

/// clap's own exit code for it.
const WRONG_USAGE: u8 = 2;

fn run(command: Command) -> Result<ExitCode> {
    check_environment()?;
    match command {
        Command::Train(args) => return commands::train::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Compare(args) => commands::compare::run(args),
        Command::Report(args) => once(|| commands::report::run(args)),
        Command::Encode(args) => commands::encode::run(args),
        Command::Mine(args) => commands::mine::run(args),
        Command::Plan(args) => once(|| commands::plan::run(args)),
        Command::Prepare(args) => commands::prepare::run(args),
        Command::Config(args) => once(|| commands::config::run(args)),
        Command::Bench(args) => once(|| commands::bench::run(args)),
        Command::Info => once(commands::info::run),
        Command::Completions(args) => once(|| commands::completions::run(args)),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Fails where one of hbt's environment variables has a value that it cannot have, whatever the command would make of it.
fn check_environment() -> Result<()> {
    Instructions::check()?;
    cuda::check_environment()
}

/// Writes to standard output, for people; data goes there by `commands::output`.
fn print(text: &str) -> Result<()> {
    io::stdout().lock().write_all(hbt::error::printable(text).as_bytes()).map_err(stdout_error)
}

/// What to say when standard output cannot be written.
fn stdout_error(source: io::Error) -> Error {
    Error::io("write", STDOUT, source)
}

/// What messages call standard output.
const STDOUT: &str = "standard output";

fn is_broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { path, source, .. }
        if path.as_os_str() == STDOUT && source.kind() == io::ErrorKind::BrokenPipe)
}

/// The error on one line, with those of its causes that it does not itself quote.
fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}
