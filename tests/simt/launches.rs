//! Mistakes in a kernel (broken.cu) and in a launch.

use super::driver::{Driver, Handle, call};
use crate::device::SEEDS;

const INVALID_VALUE: i32 = 1;
const ILLEGAL_ADDRESS: i32 = 700;
const OUT_OF_RESOURCES: i32 = 701;
const MISALIGNED: i32 = 716;
const LAUNCH_FAILED: i32 = 719;

const BLOCKS: u32 = 4;
const THREADS: u32 = 64;
const N: usize = (BLOCKS * THREADS) as usize;

/// Runs a kernel of broken.cu on 0, 1, 2, ... and gives what it wrote, or the driver's error.
fn run(driver: &Driver, kernel: &str) -> Result<Vec<f32>, i32> {
    let stream = driver.stream();
    let (out, input) = (driver.allocate(N * 4), driver.allocate(N * 4));
    let values: Vec<f32> = (0..N).map(|i| i as f32).collect();
    assert_eq!(driver.upload(input, &values, stream), 0);
    assert_eq!(driver.launch(kernel, BLOCKS, THREADS, THREADS * 16, stream, out, input, N as i64), 0);
    let mut result = vec![0.0; N];
    let code = driver.download(&mut result, out, stream);
    assert_eq!(driver.synchronize(stream), code, "an error stays with its stream");
    driver.free(out);
    driver.free(input);
    if code == 0 { Ok(result) } else { Err(code) }
}

/// The broken twin fails with this error, and the message names kernel, block, thread and `check`; the corrected one
/// runs, and gives the same result whatever the order.
#[track_caller]
fn caught(mistake: &str, code: i32, check: &str) {
    let Some(driver) = Driver::new() else { return };
    let mut results = Vec::new();
    for seed in SEEDS {
        driver.stand_in().set_seed(seed);
        let broken = format!("broken_{mistake}");
        assert_eq!(run(&driver, &broken), Err(code), "{broken} under seed {seed}");
        let message = driver.last_error();
        let place = message.strip_prefix(&format!("kernel {broken}, block ")).unwrap_or_else(|| panic!("{message}"));
        let (block, rest) = place.split_once(", thread ").unwrap();
        let (thread, rest) = rest.split_once(": ").unwrap();
        assert!(block.parse::<u32>().unwrap() < BLOCKS && thread.parse::<u32>().unwrap() < THREADS, "{message}");
        assert!(rest.starts_with(check), "{message}");
        results.push(run(&driver, &format!("correct_{mistake}")).unwrap_or_else(|_| panic!("{}", driver.last_error())));
    }
    assert!(results.iter().all(|result| bits(result) == bits(&results[0])), "{mistake}: seeds differ");
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

macro_rules! mistakes {
    ($($mistake:ident: $code:expr, $check:literal;)+) => {
        $(#[test]
        fn $mistake() {
            caught(stringify!($mistake), $code, $check);
        })+
    };
}

mistakes! {
    missing_barrier: LAUNCH_FAILED, "read-write race";
    missing_second_barrier: LAUNCH_FAILED, "read-write race";
    missing_warp_barrier: LAUNCH_FAILED, "read-write race";
    half_warp_barrier: LAUNCH_FAILED, "read-write race";
    read_past_the_end: ILLEGAL_ADDRESS, "out of range: reads 4 bytes at 0 bytes past the end of an allocation of 1024";
    write_past_the_end: ILLEGAL_ADDRESS, "out of range: writes 4 bytes";
    write_past_shared: ILLEGAL_ADDRESS, "out of range: writes 4 bytes at 0 bytes past the end of shared array tile";
    read_past_dynamic_shared: ILLEGAL_ADDRESS, "out of range: reads 4 bytes at 0 bytes past the end of dynamic shared";
    wrong_dynamic_shared: LAUNCH_FAILED, "wrong size of dynamic shared memory: the launch asked for 1024 bytes; the kernel says 1020";
    misaligned_vector: MISALIGNED, "misaligned access: reads 16 bytes";
    misaligned_shared_vector: MISALIGNED, "misaligned access: reads 16 bytes";
    early_cp_async: LAUNCH_FAILED, "cp.async in flight";
    wrong_cp_async_group: LAUNCH_FAILED, "cp.async in flight";
    cp_async_without_barrier: LAUNCH_FAILED, "read-write race";
    partial_shuffle: LAUNCH_FAILED, "divergent collective";
    crossed_shuffles: LAUNCH_FAILED, "divergent collective";
    shuffle_from_outside: LAUNCH_FAILED, "shuffle from an absent lane";
    divergent_barrier: LAUNCH_FAILED, "divergent barrier";
    two_barriers: LAUNCH_FAILED, "divergent barrier";
    write_race_between_blocks: LAUNCH_FAILED, "write-write race";
    read_race_between_blocks: LAUNCH_FAILED, "read-write race";
    shared_word: LAUNCH_FAILED, "write-write race";
    early_ldmatrix: LAUNCH_FAILED, "read-write race";
    partial_mma: LAUNCH_FAILED, "divergent collective";
}

#[test]
fn unwritten_shared_memory_is_nan_in_every_block() {
    let Some(driver) = Driver::new() else { return };
    for seed in SEEDS {
        driver.stand_in().set_seed(seed);
        let result = run(&driver, "broken_unwritten_shared").unwrap();
        for (block, values) in result.chunks(THREADS as usize).enumerate() {
            assert!(values.iter().all(|x| x.is_nan() == (block % 2 == 1)), "block {block}: {values:?}");
        }
        assert!(run(&driver, "correct_unwritten_shared").unwrap().iter().all(|x| !x.is_nan()));
    }
}

#[test]
fn fresh_memory_is_nan() {
    let Some(driver) = Driver::new() else { return };
    for n in [1, 1000, 3 << 20] {
        let (stream, address, mut values) = (driver.stream(), driver.allocate(n * 4), vec![0.0; n]);
        assert_eq!(driver.download(&mut values, address, stream), 0);
        assert!(values.iter().all(|x| x.is_nan()), "{n}");
        driver.free(address);
    }
}

#[test]
fn memory_that_is_not_the_devices() {
    let Some(driver) = Driver::new() else { return };
    let freed = driver.allocate(N * 4);
    driver.free(freed);
    let host = driver.pinned(N).as_ptr() as u64;
    for (input, named) in [(freed, "of freed memory"), (0, "null pointer"), (host, "host memory")] {
        let (stream, out) = (driver.stream(), driver.allocate(N * 4));
        assert_eq!(driver.launch("copy", BLOCKS, THREADS, 0, stream, out, input, N as i64), 0);
        assert_eq!(driver.synchronize(stream), ILLEGAL_ADDRESS);
        let message = driver.last_error();
        assert!(message.contains("kernel copy, block ") && message.contains(named), "{message}");
        // What comes after an error on its stream is not done.
        assert_eq!(driver.launch("copy", BLOCKS, THREADS, 0, stream, out, out, N as i64), ILLEGAL_ADDRESS);
    }
}

#[test]
fn a_product_of_known_matrices() {
    let Some(driver) = Driver::new() else { return };
    // Small integers, which bf16 and sums in f32 hold exactly.
    let a: Vec<f32> = (0..256).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
    let b: Vec<f32> = (0..128).map(|i| (i * 5 % 13) as f32 - 6.0).collect();
    let halves = |x: &[f32]| -> Vec<f32> {
        let half = |x: f32| x.to_bits() >> 16;
        x.chunks(2).map(|pair| f32::from_bits(half(pair[0]) | half(pair[1]) << 16)).collect()
    };
    let (stream, out) = (driver.stream(), driver.allocate(128 * 4));
    let (a_device, b_device) = (driver.allocate(512), driver.allocate(256));
    assert_eq!(driver.upload(a_device, &halves(&a), stream), 0);
    assert_eq!(driver.upload(b_device, &halves(&b), stream), 0);
    // The third argument, which `product` has not, is `b`.
    let function = driver.function("product");
    let (mut out_param, mut a_param, mut b_param) = (out, a_device, b_device);
    let mut params: [Handle; 3] = [(&raw mut out_param).cast(), (&raw mut a_param).cast(), (&raw mut b_param).cast()];
    let code = call!(driver, "cuLaunchKernel", function => Handle, 1 => u32, 1 => u32, 1 => u32, 32 => u32, 1 => u32,
        1 => u32, 1024 => u32, stream => Handle, params.as_mut_ptr() => *mut Handle,
        std::ptr::null_mut() => *mut Handle);
    assert_eq!(code, 0);
    let mut result = vec![0.0; 128];
    assert_eq!(driver.download(&mut result, out, stream), 0, "{}", driver.last_error());
    for (i, &got) in result.iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let expected: f32 = (0..16).map(|k| a[row * 16 + k] * b[k * 8 + column]).sum();
        assert_eq!(got, expected, "row {row}, column {column}");
    }
}

#[test]
fn counters_count_what_a_kernel_asks_for() {
    let Some(driver) = Driver::new() else { return };
    run(&driver, "correct_missing_barrier").unwrap();
    // Another test launches it too, with the same sizes.
    let once = driver.counters("correct_missing_barrier");
    assert_eq!(once.global_read / once.launches, N as u64 * 4);
    assert_eq!(once.global_written / once.launches, N as u64 * 4);
    assert_eq!(once.sectors_read / once.launches, N as u64 * 4 / 32);
    assert_eq!(once.shared_read / once.launches, N as u64 * 4);
    assert_eq!(once.blocks / once.launches, u64::from(BLOCKS));
    assert_eq!(once.mma, 0);
}

#[test]
fn sectors_are_counted_by_the_instruction() {
    let Some(driver) = Driver::new() else { return };
    const SECTORS: u64 = N as u64 * 4 / 32;
    // A vector that is not stored whole takes four instructions, each of which touches every sector; of floats that are 32
    // bytes apart, each is one of a sector that the instruction wants nothing else of.
    for (kernel, loads, stores) in [
        ("copy_whole_vectors", SECTORS, SECTORS),
        ("copy_vectors", SECTORS, 4 * SECTORS),
        ("copy_scattered", N as u64, SECTORS),
    ] {
        for seed in SEEDS {
            driver.stand_in().set_seed(seed);
            let before = driver.counters(kernel);
            run(&driver, kernel).unwrap();
            let after = driver.counters(kernel);
            let counted = [after.load_sectors - before.load_sectors, after.store_sectors - before.store_sectors];
            assert_eq!(counted, [loads, stores], "{kernel}, seed {seed}");
        }
    }
}

#[test]
fn launches_beyond_the_limits() {
    let Some(driver) = Driver::new() else { return };
    let (stream, out) = (driver.stream(), driver.allocate(N * 4));
    let launch = |blocks, threads, shared| driver.launch("copy", blocks, threads, shared, stream, out, out, 0);
    assert_eq!(launch(0, 64, 0), INVALID_VALUE);
    assert_eq!(launch(1, 1025, 0), INVALID_VALUE);
    // Compiled for 64 threads.
    assert_eq!(launch(1, 65, 0), OUT_OF_RESOURCES);
    assert_eq!(launch(1, 64, 48 * 1024 + 1), INVALID_VALUE);
    assert!(driver.last_error().contains("dynamic shared memory"), "{}", driver.last_error());
    const MAX_DYNAMIC_SHARED: i32 = 8;
    let function = driver.function("copy");
    let allow =
        |bytes| call!(driver, "cuFuncSetAttribute", function => Handle, MAX_DYNAMIC_SHARED => i32, bytes => i32);
    assert_eq!(allow(227 * 1024 + 1), INVALID_VALUE);
    assert_eq!(allow(227 * 1024), 0);
    assert_eq!(launch(1, 64, 227 * 1024), 0);
}

#[test]
fn a_thread_without_a_context() {
    let Some(driver) = Driver::new() else { return };
    let stand_in = driver.stand_in();
    std::thread::spawn(move || {
        let mut address = 0u64;
        // SAFETY: the type of cuMemAlloc.
        let code = unsafe {
            stand_in.function::<unsafe extern "C" fn(*mut u64, usize) -> i32>("cuMemAlloc_v2").unwrap()(&mut address, 4)
        };
        assert_eq!(code, 201);
    })
    .join()
    .unwrap();
}
