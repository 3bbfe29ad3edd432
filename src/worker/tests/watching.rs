//! Watching does not change a run.

use super::*;

fn train(path: &Path, wish: Option<ExamplesWish>, inspect: bool) -> Driver {
    let mut e = experiment();
    e.data.crop_padding = 1;
    e.fairness.clean_passes = 2;
    e.averaging.ema = true;
    e.averaging.average_from = 0;
    let mut driver = Driver::new();
    driver.send(Request::Examples(wish));
    driver.begin(e, path, inspect);
    if inspect {
        driver.until_paused();
        for _ in 0..3 {
            driver.send(Request::OneBatch);
            driver.until_paused();
        }
        driver.send(Request::Continue);
    }
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    driver
}

#[test]
fn a_watched_run_writes_the_bytes_of_an_unwatched_one() {
    let dir = tempfile::tempdir().unwrap();
    let [plain, watched] = ["plain", "watched"].map(|name| dir.path().join(name));
    assert!(train(&plain, None, false).examples().is_empty());
    let driver = train(&watched, Some(ExamplesWish { count: 5, every: Duration::ZERO }), true);
    for name in
        ["classes.csv", "checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/ema.safetensors"]
    {
        let [a, b] = [&plain, &watched].map(|path| std::fs::read(path.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    let rows = |path: &Path| crate::train::RunDir::open(path).unwrap().0.read_rows().unwrap().0;
    for (a, b) in rows(&plain).iter().zip(rows(&watched)) {
        let without_times =
            |row: &crate::train::MetricsRow| (row.train_loss, row.train_clean_accuracy, row.val_robust_worst);
        assert_eq!(without_times(a), without_times(&b));
    }

    let examples = driver.examples();
    assert!(!examples.is_empty());
    for examples in examples {
        let (n, image) = (examples.labels.len(), examples.shape.len());
        assert_eq!((n, examples.step, image), (5, (3, 3), 64));
        assert_eq!((examples.clean.len(), examples.adversarial.len()), (5 * 64, 5 * 64));
        assert_eq!((examples.ids.len(), examples.targets.as_ref().unwrap().len(), examples.epsilon.len()), (5, 5, 5));
        for probabilities in [&examples.clean_probabilities, &examples.probabilities] {
            assert_eq!(probabilities.len(), 50);
            for row in probabilities.chunks(10) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row.iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
        for i in 0..n {
            assert_ne!(examples.targets.as_ref().unwrap()[i], examples.labels[i]);
            let change =
                (0..image).map(|j| (examples.clean[i * image + j] - examples.adversarial[i * image + j]).abs());
            assert!(change.fold(0.0, f32::max) <= examples.epsilon[i] + 1e-6);
        }
        assert!(examples.clean.iter().chain(&examples.adversarial).all(|value| (0.0..=1.0).contains(value)));
    }
}

#[test]
fn examples_arrive_at_the_requested_rate_and_stop_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();
    let hours = Duration::from_secs(3600);
    driver.send(Request::Examples(Some(ExamplesWish { count: 3, every: hours })));
    driver.begin(experiment(), &run_in(&dir), false);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    let examples = driver.examples();
    assert_eq!(examples.len(), 1, "one an hour");
    assert_eq!((examples[0].epoch, examples[0].batch, examples[0].labels.len()), (0, 0, 3));

    let mut driver = Driver::new();
    driver.send(Request::Examples(Some(ExamplesWish { count: 1000, every: Duration::ZERO })));
    driver.begin(experiment(), &dir.path().join("other"), true);
    driver.until_paused();
    driver.send(Request::OneBatch);
    driver.until_paused();
    assert_eq!(driver.examples().last().unwrap().labels.len(), 40, "as many as the batch has");
    driver.send(Request::Examples(None));
    let before = driver.examples().len();
    driver.send(Request::Continue);
    assert!(matches!(driver.until_ended(), Ended::Finished(_)));
    assert_eq!(driver.examples().len(), before);
}
