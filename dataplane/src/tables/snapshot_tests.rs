use super::snapshot::published;

#[test]
fn a_version_has_passed_once_every_reader_loads_it_or_rests() {
    let table = published(1);
    let (mut busy, mut sleepy) = (table.reader(), table.reader());
    assert_eq!((*busy.load(), *sleepy.load()), (1, 1));
    let version = table.publish(2);
    assert!(!table.passed(version));
    assert_eq!(*busy.load(), 2);
    assert!(!table.passed(version), "the other still holds the old value");
    sleepy.rest();
    assert!(table.passed(version));
    sleepy.wake();
    assert!(!table.passed(version), "it may read what it had, until it loads");
    assert_eq!(*sleepy.load(), 2);
    assert!(table.passed(version));
    let version = table.publish(3);
    drop(busy);
    drop(sleepy);
    assert!(table.passed(version), "a reader that is gone holds nothing");
}

#[test]
fn readers_in_other_threads_see_versions_in_order_and_pass() {
    let table = published(0u64);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut reader = table.reader();
            scope.spawn(move || {
                let mut last = 0;
                while last < 1_000 {
                    let now = *reader.load();
                    assert!(now >= last);
                    last = now;
                }
            });
        }
        for value in 1..=1_000 {
            let version = table.publish(value);
            if value % 100 == 0 {
                while !table.passed(version) {
                    std::thread::yield_now();
                }
            }
        }
    });
}
