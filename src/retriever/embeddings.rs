//! Vectors of texts on the host.

/// Vectors of texts on the host, one row a text, in the order of the texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    dim: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Takes `values (n, dim)`, row-major.
    pub fn new(dim: usize, values: Vec<f32>) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are no rows of {dim}", values.len());
        Self { dim, values }
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of texts.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// All values, to go on with.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// One text's vector.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// All values, `(n_rows, dim)` row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
