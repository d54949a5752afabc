//! Bounds of batches: by hand, and against batches as they are drawn.

use std::sync::Arc;

use hbt::data::batch::{Batch, NegativeRules};
use hbt::data::bounds::BatchBounds;
use hbt::data::catalog::TextSource;
use hbt::data::formats::{Columns, DataSource};
use hbt::data::sampler::{BatchMode, LangSampling, Sampler, SamplerConfig};
use tempfile::TempDir;

use super::{open, write};

fn bounds(rows: &str, batch_size: usize, max_negatives: Option<usize>) -> BatchBounds {
    let dir = TempDir::new().unwrap();
    let columns = Columns { join_by_id: true, ..Columns::default() };
    let source = DataSource { columns, ..DataSource::new(write(dir.path(), "rows.jsonl", rows)) };
    BatchBounds::new([&open(&source, &dir.path().join("cache")).unwrap()], batch_size, max_negatives)
}

/// A text of `n` words is `<s> prefix w ... </s>`: `n + 3` tokens.
fn words(n: usize) -> String {
    "w5 ".repeat(n)
}

#[test]
fn by_hand() {
    let row = |id: &str, lang: &str, query: usize, positive: usize, negatives: &[usize]| {
        let negatives: Vec<String> = negatives.iter().map(|&n| words(n)).collect();
        let row = serde_json::json!({
            "id": id, "query": words(query), "query_lang": lang, "positive": words(positive),
            "passage_lang": lang, "negatives": negatives,
        });
        format!("{row}\n")
    };
    let rows = [
        // The longest query, positive and negatives of a group need not be in one language.
        row("a", "de", 1, 6, &[2]),
        row("a", "en", 3, 4, &[1, 4, 2]),
        row("b", "en", 2, 2, &[]),
        row("c", "de", 1, 1, &[]),
    ]
    .concat();
    // The rows' words are few, so that groups share some.
    let most = |(n_queries, n_seqs), n_tokens| BatchBounds {
        n_queries,
        n_seqs,
        n_tokens,
        shortest: 4,
        longest: 9,
        shares_texts: true,
    };
    assert_eq!(bounds(&rows, 1, Some(0)), most((1, 2), 6 + 9));
    assert_eq!(bounds(&rows, 2, Some(0)), most((2, 4), 6 + 9 + 5 + 5));
    // Of a's three English negatives, two are at most twice the longest.
    assert_eq!(bounds(&rows, 2, Some(2)), most((2, 4 + 2), 6 + 9 + 2 * 7 + 5 + 5));
    assert_eq!(bounds(&rows, 3, None), most((3, 6 + 3), 6 + 9 + (4 + 7 + 5) + 5 + 5 + 4 + 4));
    // Most negatives and most tokens need not be the same groups'.
    let more = [rows.as_str(), &row("d", "de", 1, 1, &[1, 2]), &row("e", "de", 5, 7, &[])].concat();
    let expected = BatchBounds { longest: 10, ..most((2, 4 + 3 + 2), 6 + 9 + (4 + 7 + 5) + 8 + 10) };
    assert_eq!(bounds(&more, 2, None), expected);
}

#[test]
fn no_batch_exceeds_them() {
    let rows = super::cache::rows(900);
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", &rows));
    let cache = Arc::new(open(&source, &dir.path().join("cache")).unwrap());
    let (lang_sampling, batch_size) = (LangSampling::Proportional, 16);
    let config = SamplerConfig {
        mode: BatchMode::Hybrid,
        alpha: 0.5,
        lang_sampling,
        lang_temperature: 3.0,
        batch_size,
        seed: 3,
    };
    let sampler = Sampler::new(cache.catalog(), &config).unwrap();
    for max_negatives in [None, Some(0), Some(1)] {
        let most = BatchBounds::new([&*cache], batch_size, max_negatives);
        let mut largest = [0, 0];
        for step in 0..300 {
            let rules = NegativeRules { per_query: max_negatives, ..NegativeRules::default() };
            let batch = Batch::pack(step, &sampler.batch(step), &*cache, rules).unwrap();
            largest = [largest[0].max(batch.n_seqs()), largest[1].max(batch.n_tokens())];
            let lens = || batch.cu_seqlens.windows(2).map(|w| (w[1] - w[0]) as usize);
            assert!(lens().all(|len| most.shortest <= len && len <= most.longest));
        }
        assert!(largest[0] <= most.n_seqs && largest[1] <= most.n_tokens, "{largest:?} in {most:?}");
        let is_near = 2 * largest[1] > most.n_tokens && 2 * largest[0] > most.n_seqs;
        assert!(is_near, "a bound far off is none: {largest:?} in {most:?}");
    }
}
