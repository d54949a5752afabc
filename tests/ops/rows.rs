//! Copies, casts and sums over rows: exact but for the sums.

use super::support::{HostSegments, Random, added, assert_close, ints, poisoned, read, rounded, tensor, vector};
use crate::{reference, tolerance};
use hbt::backend::{Backend, Ints, SegmentSum, Tensor};

pub fn zero_all<B: Backend>(backend: &B) {
    // More than a launch takes, some of them empty.
    let lens: Vec<usize> = (0..500).map(|i| [0, 1, 7, 64, 4100][i % 5]).chain([16_384, 16_385, 70_001]).collect();
    let mut xs: Vec<Tensor<B, f32>> = lens.iter().map(|&n| poisoned(backend, &[n])).collect();
    let mut other = poisoned(backend, &[4]);
    backend.zero_all(&mut xs.iter_mut().collect::<Vec<_>>()).unwrap();
    for (x, n) in xs.iter().zip(lens) {
        assert_eq!(read(backend, x), vec![0.0; n]);
    }
    assert!(read(backend, &other).iter().all(|x| x.is_nan()), "what is not in the list stays");
    backend.zero_all(&mut [&mut other]).unwrap();
    assert_eq!(read(backend, &other), [0.0; 4]);
}

pub fn cast<B: Backend>(backend: &B) {
    for n in [1, 3, 4, 33, 70_001] {
        let values = Random::new(1).values::<f32>(n, 3.0);
        let mut out = poisoned(backend, &[n]);
        backend.cast(&vector(backend, &values), &mut out).unwrap();
        let expected: Vec<f64> = values.into_iter().map(rounded::<B::E>).collect();
        assert_eq!(read(backend, &out), expected);
    }
}

pub fn copy_rows<B: Backend>(backend: &B) {
    for (rows, width, start, n) in [(1, 1, 0, 1), (9, 7, 3, 5), (300, 96, 299, 1), (70_000, 2, 0, 70_000)] {
        let values = Random::new(2).values::<f32>(rows * width, 1.0);
        let mut out = poisoned(backend, &[n, width]);
        backend.copy_rows(&tensor(backend, &values, &[rows, width]), start, &mut out).unwrap();
        assert_eq!(read(backend, &out), values[start * width..(start + n) * width]);
    }
}

pub fn paste_rows<B: Backend>(backend: &B) {
    for (rows, width, start, n) in [(1, 1, 0, 1), (9, 7, 3, 5), (300, 96, 299, 1), (70_000, 2, 0, 70_000)] {
        let mut random = Random::new(3);
        let (mut values, patch) = (random.values::<f32>(rows * width, 1.0), random.values::<f32>(n * width, 1.0));
        let mut out = tensor(backend, &values, &[rows, width]);
        backend.paste_rows(&tensor(backend, &patch, &[n, width]), &mut out, start).unwrap();
        values[start * width..(start + n) * width].copy_from_slice(&patch);
        assert_eq!(read(backend, &out), values, "the pasted rows, and no others, change");
    }
}

/// Row numbers in no order, none twice, among 9 rows; and none at all.
const SCATTERED: [&[i32]; 3] = [&[7, 0, 8, 3], &[5], &[]];
const WIDTHS: [usize; 5] = [1, 7, 8, 96, 1025];

pub fn gather_rows<B: Backend>(backend: &B) {
    for (rows, width) in SCATTERED.into_iter().flat_map(|rows| WIDTHS.map(|width| (rows, width))) {
        let values = Random::new(5).values::<f32>(9 * width, 1.0);
        let mut out = poisoned(backend, &[rows.len(), width]);
        backend.gather_rows(&tensor(backend, &values, &[9, width]), Ints::all(&ints(backend, rows)), &mut out).unwrap();
        let expected: Vec<f64> =
            rows.iter().flat_map(|&row| values[row as usize * width..][..width].iter().copied()).collect();
        assert_eq!(read(backend, &out), expected);
    }
}

pub fn gather_cast<B: Backend>(backend: &B) {
    for (rows, width) in SCATTERED.into_iter().flat_map(|rows| WIDTHS.map(|width| (rows, width))) {
        let mut random = Random::new(5);
        let (values, scale) = (random.values::<f32>(9 * width, 1.0), random.values::<f32>(rows.len(), 1.0));
        // Not all of the numbers.
        let all = ints(backend, &[&[1, 1][..], rows].concat());
        let part = Ints::all(&all).part(2..2 + rows.len());
        let x = tensor(backend, &values, &[9, width]);
        for scale in [None, Some(scale)] {
            let mut out: Tensor<B, B::E> = poisoned(backend, &[rows.len(), width]);
            let factors = scale.as_ref().map(|scale| vector(backend, scale));
            backend.gather_cast(&x, part, factors.as_ref(), &mut out).unwrap();
            let of_row = |(i, &row): (usize, &i32)| {
                let scale = scale.as_ref().map_or(1.0, |scale| scale[i]);
                let scaled = |v: &f64| rounded::<B::E>(rounded::<f32>(scale * v));
                values[row as usize * width..][..width].iter().map(scaled).collect::<Vec<_>>()
            };
            assert_eq!(read(backend, &out), rows.iter().enumerate().flat_map(of_row).collect::<Vec<_>>());
        }
    }
}

/// Rows of the wide matrix, and the widths of both.
const COLUMNS: [(usize, usize, usize); 6] =
    [(3, 1, 1), (9, 8, 3), (9, 96, 64), (20, 384, 384), (2, 1030, 1024), (0, 8, 4)];

pub fn copy_columns<B: Backend>(backend: &B) {
    for (rows, wide, narrow) in COLUMNS {
        let values = Random::new(7).values::<f32>(rows * wide, 1.0);
        let mut out = poisoned(backend, &[rows, narrow]);
        backend.copy_columns(&tensor(backend, &values, &[rows, wide]), &mut out).unwrap();
        let expected: Vec<f64> = values.chunks(wide).flat_map(|row| row[..narrow].iter().copied()).collect();
        assert_eq!(read(backend, &out), expected);
    }
}

pub fn add_columns<B: Backend>(backend: &B) {
    for (rows, wide, narrow) in COLUMNS {
        let mut random = Random::new(8);
        let (mut values, x) = (random.values::<f32>(rows * wide, 1.0), random.values::<f32>(rows * narrow, 1.0));
        let mut out = tensor(backend, &values, &[rows, wide]);
        backend.add_columns(&tensor(backend, &x, &[rows, narrow]), &mut out).unwrap();
        for (row, x) in values.chunks_mut(wide).zip(x.chunks(narrow)) {
            row.iter_mut().zip(x).for_each(|(v, x)| *v = rounded::<f32>(*v + x));
        }
        assert_eq!(read(backend, &out), values, "the first columns, and no others, change");
    }
}

pub fn scatter_rows<B: Backend>(backend: &B) {
    for (rows, width) in SCATTERED.into_iter().flat_map(|rows| WIDTHS.map(|width| (rows, width))) {
        let mut random = Random::new(6);
        let (values, patch) = (random.values::<f32>(9 * width, 1.0), random.values::<f32>(rows.len() * width, 1.0));
        let scale = random.values::<f32>(rows.len(), 1.0);
        let (x, numbers) = (tensor(backend, &patch, &[rows.len(), width]), ints(backend, rows));
        for scale in [None, Some(scale)] {
            let mut out = tensor(backend, &values, &[9, width]);
            let factors = scale.as_ref().map(|scale| vector(backend, scale));
            backend.scatter_rows(&x, factors.as_ref(), Ints::all(&numbers), &mut out).unwrap();
            let mut expected = values.clone();
            for (i, (patch, &row)) in patch.chunks(width).zip(rows).enumerate() {
                let scale = scale.as_ref().map_or(1.0, |scale| scale[i]);
                let out = &mut expected[row as usize * width..][..width];
                out.iter_mut().zip(patch).for_each(|(out, x)| *out = rounded::<f32>(scale * x));
            }
            assert_eq!(read(backend, &out), expected, "the named rows, and no others, change");
        }
    }
}

pub fn segment_sum<B: Backend>(backend: &B) {
    let even = [(1, 1, 1), (50, 7, 6), (130, 33, 200), (300, 384, 5), (70_000, 3, 2)];
    // With a long segment of half the tokens, which lies between short ones; and around 64, where it is cut, and whole pieces.
    let one_long = [(64, 8, 1), (65, 8, 1), (128, 8, 1), (129, 40, 1), (1000, 16, 300), (400, 768, 7), (300, 2056, 3)];
    for ((tokens, width, n_rows), long) in even.map(|c| (c, false)).into_iter().chain(one_long.map(|c| (c, true))) {
        let mut random = Random::new(5);
        let mut row_of: Vec<i32> = (0..tokens).map(|_| random.below(n_rows) as i32).collect();
        if long {
            row_of.iter_mut().step_by(2).for_each(|row| *row = n_rows as i32 / 2);
        }
        // Rows that no token names may be missing or empty.
        let mut rows: Vec<i32> = (0..n_rows as i32).collect();
        rows.retain(|row| row_of.contains(row) || row % 2 == 0);
        let segments = HostSegments::new(&row_of, &rows);
        let (x, start) = (random.values::<B::E>(tokens * width, 1.0), random.values::<f32>(n_rows * width, 1.0));
        let mut out = tensor(backend, &start, &[n_rows, width]);
        let on_device = segments.on(backend);
        let x_device = tensor(backend, &x, &[tokens, width]);
        backend.segment_sum(SegmentSum { x: &x_device, segments: on_device.get(), out: &mut out }).unwrap();
        let HostSegments { order, starts, rows } = &segments;
        let sums = reference::rows::segment_sum(&x, width, order, starts, rows, &vec![0.0; start.len()]);
        assert_close("segment_sum", &added(backend, &out, &start), &sums, tolerance::sum(tokens));
    }
}

/// How a row's tokens are added up must not depend on where its segment lies.
pub fn segment_sum_by_itself<B: Backend>(backend: &B) {
    let (tokens, width) = (500, 8);
    let x = Random::new(7).values::<B::E>(tokens * width, 1.0);
    let x = tensor(backend, &x, &[tokens, width]);
    // Tokens of row 1 are always the same 171; those before them are 0, 1 or 300.
    let sums = [0, 1, 300].map(|before| {
        let row_of: Vec<i32> =
            (0..tokens).map(|t| if t < before { 0 } else { 2 - i32::from((300..471).contains(&t)) }).collect();
        let segments = HostSegments::new(&row_of, &[0, 1, 2]).on(backend);
        let mut out = Tensor::zeros(backend, &[3, width]).unwrap();
        backend.segment_sum(SegmentSum { x: &x, segments: segments.get(), out: &mut out }).unwrap();
        out.part_to_vec(backend, width..2 * width).unwrap()
    });
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0], sums[2]);
}
