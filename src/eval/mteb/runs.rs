//! Order by a value, where equal values are taken together.

/// Items in ascending order of a value that each has, in runs of equal ones, in which they are in no order.
pub(super) struct Runs {
    /// Indices of the items.
    order: Vec<usize>,
    /// Where in `order` each run ends.
    ends: Vec<usize>,
}

impl Runs {
    /// One item for each of `values`. They are equal as numbers are: 0 and -0.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut ends = Vec::new();
        for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
            ends.push(ends.last().unwrap_or(&0) + run.len());
        }
        Runs { order, ends }
    }

    /// The items of each run, smallest value first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &[usize]> {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.order[start..self.ends[i]]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;

    #[test]
    fn equal_values_are_one_run() {
        let runs = Runs::of(&[2.0, 0.0, -1.0, -0.0, 2.0]);
        let sorted: Vec<Vec<usize>> = runs
            .iter()
            .map(|run| {
                let mut run = run.to_vec();
                run.sort_unstable();
                run
            })
            .collect();
        assert_eq!(sorted, [vec![2], vec![1, 3], vec![0, 4]]);
        assert_eq!(runs.iter().next_back().map(<[usize]>::len), Some(2));
        assert_eq!(Runs::of(&[]).iter().count(), 0);
    }
}
