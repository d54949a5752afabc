//! Copies that nobody waits for, to the device and back, among work that uses the same memory.

use super::support::{Random, ints, poisoned, receive, tensor};
use hbt::backend::{Backend, Ints, Tensor};

/// An upload has the values that the host held at the call, whatever it writes there afterwards, in any amount.
pub fn upload<B: Backend>(backend: &B) {
    let lens = [[3, 5_000_000, 70_001, 1].as_slice(), &[300_000; 20], &[7; 300]].concat();
    let value = |i: usize, j: usize| (i * 31 + j % 65_536) as f32;
    let (mut host, mut tensors): (Vec<f32>, Vec<Tensor<B, f32>>) = (Vec::new(), Vec::new());
    for (i, &len) in lens.iter().enumerate() {
        host.clear();
        host.extend((0..len).map(|j| value(i, j)));
        tensors.push(Tensor::from_slice(backend, &host, &[len]).unwrap());
        host.fill(-1.0);
    }
    drop(host);
    for (i, tensor) in tensors.iter().enumerate() {
        let got = tensor.to_vec(backend).unwrap();
        let wrong = (0..got.len()).find(|&j| got[j] != value(i, j));
        assert!(wrong.is_none(), "upload {i}: {wrong:?} of {}", got.len());
    }
}

/// Memory is fed again while the work that reads what it held may not have begun.
pub fn feed<B: Backend>(backend: &B) {
    let (n_rows, width, n) = (50, 7, 1000);
    let mut random = Random::new(7);
    let values = random.values::<f32>(n_rows * width, 1.0);
    let x = tensor(backend, &values, &[n_rows, width]);
    let mut rows: Tensor<B, i32> = ints(backend, &vec![-1; n]);
    let mut results = backend.readback(3 * n * width).unwrap();
    let (mut blocks, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let numbers: Vec<i32> = (0..n).map(|_| random.below(n_rows) as i32).collect();
        // Longer than what is fed of it.
        let mut block = backend.host_block(n + 5).unwrap();
        block.as_mut()[..n].copy_from_slice(&numbers);
        let arrival = backend.feed(&block, n, rows.buffer_mut()).unwrap();
        backend.await_feed(arrival).unwrap();
        let mut out = poisoned(backend, &[n, width]);
        backend.gather_rows(&x, Ints::all(&rows), &mut out).unwrap();
        backend.read_later(&out, &mut results).unwrap();
        expected.extend(numbers.iter().flat_map(|&row| values[row as usize * width..][..width].iter().copied()));
        blocks.push(block);
    }
    let got: Vec<f64> = receive(backend, &mut results).into_iter().map(f64::from).collect();
    assert!(got == expected, "each gather reads the rows that were fed before it, and no later ones");
}

/// Values are those of the moment in which they were asked for.
pub fn read_later<B: Backend>(backend: &B) {
    let (a, b) = (Random::new(8).values::<f32>(70_001, 1.0), Random::new(9).values::<f32>(3, 1.0));
    let mut results = backend.readback(2 * a.len() + b.len()).unwrap();
    assert!(backend.has_arrived(&results).unwrap(), "nothing was asked for");
    assert!(receive(backend, &mut results).is_empty());
    for _ in 0..2 {
        let mut x: Tensor<B, f32> = tensor(backend, &a, &[a.len()]);
        backend.read_later(&x, &mut results).unwrap();
        backend.zero_all(&mut [&mut x]).unwrap();
        backend.read_later(&tensor::<B, f32>(backend, &b, &[3, 1]), &mut results).unwrap();
        backend.read_later(&x, &mut results).unwrap();
        while !backend.has_arrived(&results).unwrap() {}
        let got: Vec<f64> = receive(backend, &mut results).into_iter().map(f64::from).collect();
        assert!(got == [&a[..], &b, &vec![0.0; a.len()]].concat());
    }
}
