//! A device that is closed and opened again by threads that have used it before. The stand-in destroys its context when the
//! last one lets go of it.

use crate::device::{self, StandIn};
use hbt::backend::{Cuda, Operations, Tensor};
use std::env;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;

/// A product on the device, to see that it works.
fn use_it(cuda: &Cuda<f32>) {
    let mut x = Tensor::from_slice(cuda, &[1.0f32, 2.0, 3.0], &[3]).unwrap();
    assert_eq!(x.to_vec(cuda).unwrap(), [1.0, 2.0, 3.0]);
    cuda.zero_all(&mut [&mut x]).unwrap();
    assert_eq!(x.to_vec(cuda).unwrap(), [0.0; 3]);
}

/// Runs in a process of its own: no other test must keep the context alive.
#[test]
#[ignore = "a_device_that_is_opened_again_serves_every_thread runs it"]
fn opened_again() {
    StandIn::get();
    let (to_other, devices) = channel::<Cuda<f32>>();
    let (done, answers) = channel();
    // Uses each device that it is given, and is bound to the last one when that one is gone.
    let other = thread::spawn(move || {
        for cuda in devices {
            use_it(&cuda);
            done.send(cuda).unwrap();
        }
    });
    for _ in 0..3 {
        let cuda = Cuda::new(0).unwrap();
        use_it(&cuda);
        to_other.send(cuda.clone()).unwrap();
        drop(answers.recv().unwrap());
        drop(cuda);
    }
    drop(to_other);
    other.join().unwrap();
}

#[test]
fn a_device_that_is_opened_again_serves_every_thread() {
    if device::is_real() {
        return opened_again();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "cuda::contexts::opened_again"]);
    let output = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
}
