//! Readers that go away: nothing panics, and a run goes on.

use crate::common::{Sandbox, fixture, program, train};
use std::process::Stdio;

#[cfg(unix)]
#[test]
fn a_reader_that_has_gone_is_no_error() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let lines: String = (0..3000).map(|i| format!("text {i}\n")).collect();
    sandbox.write("texts.txt", lines);
    for args in [vec!["info"], vec!["config"], vec!["encode", "--model", &bert, "--input", "texts.txt"]] {
        let mut child = sandbox.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(0) && !stderr.contains("error"), "{args:?}: {stderr}");
    }
    // Nobody reads what training says, on either stream.
    let args = train(&bert, &["steps=3", "log_steps=1"]);
    let mut child = sandbox.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.json("run/last/training_state.json")["complete"], true);
    // An error keeps its exit code.
    let mut child = sandbox.command(&train(&bert, &[])).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[cfg(unix)]
#[test]
fn streams_that_are_closed_are_no_error() {
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let mut command = std::process::Command::new("sh");
    let args = train(&bert, &["steps=2"]);
    command.args(["-c", "\"$@\" <&- >&- 2>&-", "sh"]).arg(program()).args(args);
    command.current_dir(sandbox.path("")).env("HBT_CACHE", sandbox.path("cache"));
    assert_eq!(command.status().unwrap().code(), Some(0));
    assert_eq!(sandbox.json("run/last/training_state.json")["complete"], true);
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    let sandbox = Sandbox::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = sandbox.command(&["info"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("error: cannot write standard output: No space left on device"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// A configuration that can be read only once, as `<(...)` is.
#[cfg(unix)]
#[test]
fn a_configuration_comes_through_a_pipe() {
    use std::io::Write;
    let sandbox = Sandbox::with_groups(8);
    let bert = fixture("bert");
    let config = format!("model = '{bert}'\ndata = 'data.jsonl'\nbatch_size = 4\nsteps = 1\neval_task = 'parallel'\n");
    for (args, said) in [
        (&["eval", "/dev/stdin"][..], format!("{bert}: parallel")),
        (&["train", "/dev/stdin", "--out", "run"], "into run".to_owned()),
        (&["mine", "/dev/stdin", "--output", "mined.jsonl", "--range-min", "1"], "mined".to_owned()),
    ] {
        let mut command = sandbox.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
        assert!(output.status.success() && text.contains(&said), "{args:?}: {text}");
    }
    assert!(sandbox.read("run/config.toml").contains("batch_size = 4\n"));
}
