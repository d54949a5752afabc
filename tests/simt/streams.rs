//! Mistakes in the order of work: streams run as late as they may.

use super::driver::{Driver, Handle, call};
use crate::device::SEEDS;
use std::ffi::CStr;

const N: usize = 256;

fn copy(driver: &Driver, stream: Handle, out: u64, input: u64) {
    assert_eq!(driver.launch("copy", 4, 64, 0, stream, out, input, N as i64), 0);
}

/// Uploads on one stream, copies on another and reads back what that gave. `order` is called between.
fn across(driver: &Driver, order: impl Fn(Handle, Handle)) -> Vec<f32> {
    let (first, second) = (driver.stream(), driver.stream());
    let (out, input, host) = (driver.allocate(N * 4), driver.allocate(N * 4), driver.pinned(N));
    host.fill(1.0);
    assert_eq!(driver.upload(input, host, first), 0);
    order(first, second);
    copy(driver, second, out, input);
    let mut result = vec![0.0; N];
    assert_eq!(driver.download(&mut result, out, second), 0);
    result
}

#[test]
fn streams_that_nothing_orders() {
    let Some(driver) = Driver::new() else { return };
    let mut unordered = Vec::new();
    for seed in 1..=8 {
        driver.stand_in().set_seed(seed);
        unordered.push(across(&driver, |_, _| ()));
        let with_event = across(&driver, |first, second| {
            let event = driver.event();
            assert_eq!(call!(driver, "cuEventRecord", event => Handle, first => Handle), 0);
            assert_eq!(call!(driver, "cuStreamWaitEvent", second => Handle, event => Handle, 0 => u32), 0);
        });
        assert_eq!(with_event, [1.0; N]);
        assert_eq!(across(&driver, |first, _| assert_eq!(driver.synchronize(first), 0)), [1.0; N]);
    }
    assert!(unordered.iter().any(|result| result[0].is_nan()), "a missing wait shows under some order");
}

#[test]
fn a_pinned_buffer_used_again_too_early() {
    let Some(driver) = Driver::new() else { return };
    for seed in SEEDS {
        driver.stand_in().set_seed(seed);
        let (stream, device, host) = (driver.stream(), driver.allocate(N * 4), driver.pinned(N));
        let mut result = vec![0.0; N];
        host.fill(1.0);
        assert_eq!(driver.upload(device, host, stream), 0);
        host.fill(2.0);
        assert_eq!(driver.download(&mut result, device, stream), 0);
        assert_eq!(result, [2.0; N], "the copy reads pinned memory when it runs");

        host.fill(1.0);
        assert_eq!(driver.upload(device, host, stream), 0);
        assert_eq!(driver.synchronize(stream), 0);
        host.fill(2.0);
        assert_eq!(driver.download(&mut result, device, stream), 0);
        assert_eq!(result, [1.0; N]);
    }
}

/// Uploads pageable memory, which is then written to, and given back; what the device has got.
fn of_pageable(driver: &Driver, mode: &CStr, n: usize, then: impl FnOnce(Vec<f32>) -> Option<Vec<f32>>) -> Vec<f32> {
    driver.stand_in().set_pageable(mode);
    let (stream, device) = (driver.stream(), driver.allocate(n * 4));
    let (host, mut result) = (vec![1.0; n], vec![0.0; n]);
    assert_eq!(driver.upload(device, &host, stream), 0);
    let _kept = then(host);
    assert_eq!(driver.download(&mut result, device, stream), 0);
    assert_eq!(driver.synchronize(stream), 0);
    result
}

#[test]
fn pageable_memory_is_read_during_the_call_or_late() {
    let Some(driver) = Driver::new() else { return };
    let overwritten = |mut host: Vec<f32>| {
        host.fill(2.0);
        Some(host)
    };
    assert_eq!(of_pageable(&driver, c"staged", N, overwritten), [1.0; N]);
    assert_eq!(of_pageable(&driver, c"sync", N, overwritten), [1.0; N]);
    assert_eq!(of_pageable(&driver, c"late", N, overwritten), [2.0; N], "where the device reads it when it gets there");
    assert_eq!(of_pageable(&driver, c"late", N, Some), [1.0; N]);
    // So large that the system takes it back at once.
    let gone = of_pageable(&driver, c"late", 1 << 24, |_| None);
    assert!(gone.iter().all(|x| x.is_nan()), "memory that is gone");
}

/// What comes late is not there when the call returns.
#[test]
fn pageable_memory_is_written_late() {
    let Some(driver) = Driver::new() else { return };
    driver.stand_in().set_pageable(c"late");
    let (stream, device, mut host) = (driver.stream(), driver.allocate(N * 4), vec![0.0; N]);
    assert_eq!(driver.upload(device, &[1.0; N], stream), 0);
    assert_eq!(driver.synchronize(stream), 0);
    assert_eq!(driver.download(&mut host, device, stream), 0);
    assert!(host.iter().all(|x| x.is_nan()));
    assert_eq!(driver.synchronize(stream), 0);
    assert_eq!(host, [1.0; N]);
}

#[test]
fn a_pinned_buffer_read_before_its_copy_is_over() {
    let Some(driver) = Driver::new() else { return };
    let (stream, device, host) = (driver.stream(), driver.allocate(N * 4), driver.pinned(N));
    assert_eq!(driver.upload(device, &[1.0; N], stream), 0);
    host.fill(0.0);
    assert_eq!(driver.download(host, device, stream), 0);
    assert!(host.iter().all(|x| x.is_nan()));
    assert_eq!(driver.synchronize(stream), 0);
    assert_eq!(host, [1.0; N]);
}

#[test]
fn copies_outside_of_an_allocation() {
    let Some(driver) = Driver::new() else { return };
    let (stream, device) = (driver.stream(), driver.allocate(N * 4));
    let mut values = vec![0.0; N + 1];
    assert_eq!(driver.upload(device, &values, stream), 1);
    assert_eq!(driver.download(&mut values, device, stream), 1);
    assert_eq!(call!(driver, "cuMemsetD8Async", device + 4 => u64, 0 => u8, N * 4 => usize, stream => Handle), 1);
    assert_eq!(call!(driver, "cuMemFree_v2", device + 256 => u64), 1, "not the start of an allocation");
}

#[test]
fn queries_get_there_in_the_end() {
    let Some(driver) = Driver::new() else { return };
    const NOT_READY: i32 = 600;
    let (stream, device, event) = (driver.stream(), driver.allocate(N * 4), driver.event());
    assert_eq!(driver.upload(device, &[1.0; N], stream), 0);
    copy(&driver, stream, driver.allocate(N * 4), device);
    assert_eq!(call!(driver, "cuEventRecord", event => Handle, stream => Handle), 0);
    assert_eq!(call!(driver, "cuEventQuery", event => Handle), NOT_READY);
    let answer = (0..100).map(|_| call!(driver, "cuEventQuery", event => Handle)).find(|&code| code != NOT_READY);
    assert_eq!(answer, Some(0));
}
