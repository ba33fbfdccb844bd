//! Real files and directories. What is done before `changed` is called is in the kernel's queue, so that
//! these tests know the number of reports.

use std::{fs::OpenOptions, io::Write, os::unix::fs::symlink};

use tempfile::TempDir;
use tokio::time::{interval, timeout};

use super::*;

/// Longest time to wait for a report that has to come.
const LIMIT: Duration = Duration::from_secs(30);

/// A directory, and a file of its own whose reports prove that there are no others.
struct House {
    directory: TempDir,
    watch: FileWatch,
    bell: (TempDir, WatchId),
}

impl House {
    fn new() -> Self {
        Self::with(FileWatch::new())
    }

    fn with(mut watch: FileWatch) -> Self {
        let other = TempDir::new().unwrap();
        let bell = watch.add(&other.path().join("bell"), None).unwrap();
        Self { directory: TempDir::new().unwrap(), watch, bell: (other, bell) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn create_directory(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    /// As `ln -sfn` does it.
    fn link(&self, target: &str, name: &str) {
        symlink(target, self.path("link.new")).unwrap();
        self.rename("link.new", name);
    }

    fn add(&mut self, name: &str) -> WatchId {
        self.watch.add(&self.path(name), None).unwrap()
    }

    async fn report(&mut self) -> Vec<WatchId> {
        timeout(LIMIT, self.watch.changed()).await.expect("a report")
    }

    /// This file is reported, once, and nothing else.
    async fn expect(&mut self, id: WatchId) {
        assert_eq!(self.report().await, [id]);
        self.expect_nothing().await;
    }

    /// Nothing is reported of what was done before.
    async fn expect_nothing(&mut self) {
        fs::write(self.bell.0.path().join("bell"), "rings").unwrap();
        assert_eq!(self.report().await, [self.bell.1]);
    }

    /// The file changes when its content does, and only then.
    async fn expect_it_works(&mut self, id: WatchId, name: &str) {
        self.write(name, "new content");
        self.expect(id).await;
    }
}

#[tokio::test]
async fn another_file_that_is_renamed_onto_the_name_is_noticed() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    for _ in 0..3 {
        house.write("file.new", "two");
        house.rename("file.new", "file");
        house.expect(id).await;
    }
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn several_writes_in_place_are_one_report() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    for _ in 0..5 {
        house.write("file", "two");
        let mut file = OpenOptions::new().append(true).open(house.path("file")).unwrap();
        file.write_all(b" and three").unwrap();
    }
    house.expect(id).await;
}

#[tokio::test]
async fn a_write_is_noticed_while_the_file_stays_open() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    let mut file = OpenOptions::new().write(true).open(house.path("file")).unwrap();
    file.write_all(b"two").unwrap();
    house.expect(id).await;
    file.set_len(0).unwrap();
    house.expect(id).await;
    drop(file);
    house.expect(id).await;
}

#[tokio::test]
async fn after_slow_writes_the_last_report_comes_when_all_is_written() {
    const PIECES: usize = 20;
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    let path = house.path("file");
    let mut file = OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    let mut pace = interval(Duration::from_millis(30));
    let all_reported = async {
        let mut written = 0;
        loop {
            tokio::select! {
                _ = pace.tick(), if written < PIECES => {
                    file.write_all(b"piece").unwrap();
                    written += 1;
                }
                changed = house.watch.changed() => {
                    assert_eq!(changed, [id]);
                    if fs::read(&path).unwrap().len() == PIECES * b"piece".len() {
                        break;
                    }
                }
            }
        }
    };
    timeout(LIMIT, all_reported).await.expect("a report");
}

#[tokio::test]
async fn a_file_that_is_written_without_a_pause_is_reported_all_the_same() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    let path = house.path("file");
    let mut pace = interval(Duration::from_millis(10));
    let two_reports = async {
        let mut reports = 0;
        while reports < 2 {
            // A call that is given up each time loses nothing.
            tokio::select! {
                _ = pace.tick() => fs::write(&path, "two").unwrap(),
                changed = house.watch.changed() => {
                    assert_eq!(changed, [id]);
                    reports += 1;
                }
            }
        }
    };
    timeout(LIMIT, two_reports).await.expect("a report");
}

#[tokio::test]
async fn a_call_that_is_given_up_loses_nothing() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    house.write("file", "two");
    let report = async {
        loop {
            if let Ok(changed) = timeout(Duration::from_millis(7), house.watch.changed()).await {
                break changed;
            }
        }
    };
    assert_eq!(timeout(LIMIT, report).await.expect("a report"), [id]);
}

#[tokio::test]
async fn another_file_of_the_directory_is_no_change() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    house.write("other", "one");
    house.write("file.new", "one");
    house.rename("other", "third");
    fs::remove_file(house.path("third")).unwrap();
    house.create_directory("directory");
    house.expect_nothing().await;
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn reading_the_file_is_no_change() {
    let mut house = House::new();
    house.write("file", "one");
    house.add("file");
    assert_eq!(fs::read(house.path("file")).unwrap(), b"one");
    house.expect_nothing().await;
}

#[tokio::test]
async fn a_file_that_was_not_there_is_noticed() {
    let mut house = House::new();
    let id = house.add("file");
    house.expect_nothing().await;
    house.write("file", "one");
    house.expect(id).await;
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn a_file_is_noticed_whose_directories_were_not_there() {
    let mut house = House::new();
    let id = house.add("a/b/c/file");
    house.create_directory("a");
    house.expect(id).await;
    house.create_directory("a/b/c");
    house.expect(id).await;
    house.write("a/b/c/file", "one");
    house.expect(id).await;
    house.expect_it_works(id, "a/b/c/file").await;
}

#[tokio::test]
async fn a_file_that_is_deleted_and_created_is_noticed() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    fs::remove_file(house.path("file")).unwrap();
    house.expect(id).await;
    house.write("file", "two");
    house.expect(id).await;
    fs::remove_file(house.path("file")).unwrap();
    house.write("file", "three");
    house.expect(id).await;
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn a_symbolic_link_that_is_replaced_is_noticed() {
    let mut house = House::new();
    house.write("first", "one");
    house.write("second", "two");
    house.link("first", "file");
    let id = house.add("file");
    house.expect_it_works(id, "first").await;
    house.link("second", "file");
    house.expect(id).await;
    house.expect_it_works(id, "second").await;
    house.write("first", "nobody reads this");
    house.expect_nothing().await;
    // Without a rename.
    fs::remove_file(house.path("file")).unwrap();
    symlink(house.path("first"), house.path("file")).unwrap();
    house.expect(id).await;
    house.expect_it_works(id, "first").await;
}

#[tokio::test]
async fn a_link_to_what_is_not_there_yet_is_followed_when_it_is() {
    let mut house = House::new();
    house.create_directory("real");
    house.link("nowhere/file", "file");
    let id = house.add("file");
    house.expect_nothing().await;
    house.link("real/file", "file");
    house.expect(id).await;
    house.write("real/file", "one");
    house.expect(id).await;
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn a_link_on_the_way_that_is_replaced_is_noticed() {
    let mut house = House::new();
    for directory in ["blue", "green"] {
        house.create_directory(&format!("{directory}/deep"));
        house.write(&format!("{directory}/deep/file"), directory);
    }
    house.link("blue", "current");
    let id = house.add("current/deep/../deep/file");
    house.link("green", "current");
    house.expect(id).await;
    house.expect_it_works(id, "green/deep/file").await;
    house.write("blue/deep/file", "nobody reads this");
    house.expect_nothing().await;
}

#[tokio::test]
async fn links_in_a_circle_are_looked_at_until_there_is_a_file() {
    let mut house = House::new();
    symlink("there", house.path("here")).unwrap();
    symlink("here", house.path("there")).unwrap();
    let id = house.add("here");
    house.write("file", "one");
    house.rename("file", "there");
    assert_eq!(house.report().await, [id]);
    house.expect_it_works(id, "there").await;
}

/// A mounted `ConfigMap`, as the kubelet writes it.
fn publish(house: &House, version: &str) {
    let directory = format!("..{version}");
    house.create_directory(&directory);
    house.write(&format!("{directory}/lds.yaml"), version);
    house.write(&format!("{directory}/cds.yaml"), version);
    symlink(&directory, house.path("..data_tmp")).unwrap();
    let old = fs::read_link(house.path("..data"));
    house.rename("..data_tmp", "..data");
    if let Ok(old) = old {
        fs::remove_dir_all(house.directory.path().join(old)).unwrap();
    }
}

#[tokio::test]
async fn a_config_map_of_kubernetes_changes_by_a_rename_of_its_directory() {
    let mut house = House::new();
    publish(&house, "2026_01");
    symlink("..data/lds.yaml", house.path("lds.yaml")).unwrap();
    symlink("..data/cds.yaml", house.path("cds.yaml")).unwrap();
    let [listeners, clusters] = ["lds.yaml", "cds.yaml"].map(|name| house.add(name));
    for version in ["2026_02", "2026_03", "2026_04"] {
        publish(&house, version);
        assert_eq!(house.report().await, [listeners, clusters]);
        assert_eq!(fs::read_to_string(house.path("lds.yaml")).unwrap(), version);
        house.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_directory_that_is_moved_away_is_replaced_by_the_new_one() {
    let mut house = House::new();
    house.create_directory("a/b");
    house.write("a/b/file", "one");
    let id = house.add("a/b/file");
    // At once.
    house.create_directory("new/b");
    house.write("new/b/file", "two");
    house.rename("a", "old");
    house.rename("new", "a");
    house.expect(id).await;
    house.expect_it_works(id, "a/b/file").await;
    // With a time between.
    house.rename("a/b", "away");
    house.expect(id).await;
    house.create_directory("a/b");
    house.expect(id).await;
    house.write("a/b/file", "three");
    house.expect(id).await;
    house.write("away/file", "nobody reads this");
    house.write("old/b/file", "nobody reads this");
    house.expect_nothing().await;
}

#[tokio::test]
async fn a_directory_that_is_deleted_and_created_is_watched_anew() {
    let mut house = House::new();
    house.create_directory("a/b");
    house.write("a/b/file", "one");
    let id = house.add("a/b/file");
    fs::remove_dir_all(house.path("a")).unwrap();
    house.expect(id).await;
    house.create_directory("a/b");
    house.write("a/b/file", "two");
    house.expect(id).await;
    house.expect_it_works(id, "a/b/file").await;
}

#[tokio::test]
async fn what_is_moved_into_the_watched_directory_counts() {
    let mut house = House::new();
    house.create_directory("directory");
    house.write("file", "one");
    let directory = house.path("directory");
    let id = house.watch.add(&house.path("file"), Some(&directory)).unwrap();
    house.write("directory/other", "as in Envoy, what is not moved there does not count");
    house.expect_nothing().await;
    house.rename("directory/other", "directory/another");
    house.expect(id).await;
    house.expect_it_works(id, "file").await;
    // The directory itself is replaced, as everything on the way is.
    house.rename("directory", "old");
    house.create_directory("directory");
    house.expect(id).await;
    house.rename("old/another", "directory/another");
    house.expect(id).await;
}

#[tokio::test]
async fn a_change_under_another_name_of_the_file_is_noticed() {
    let mut house = House::new();
    house.write("file", "one");
    fs::hard_link(house.path("file"), house.path("name")).unwrap();
    let id = house.add("file");
    house.expect_it_works(id, "name").await;
}

#[tokio::test]
async fn a_removed_file_is_not_reported_and_its_neighbour_is() {
    let mut house = House::new();
    house.write("file", "one");
    let first = house.add("file");
    let second = house.add("file");
    house.write("file", "two");
    assert_eq!(house.report().await, [first, second]);
    house.write("file", "three");
    house.watch.remove(first);
    house.expect(second).await;
    house.watch.remove(second);
    house.write("file", "four");
    house.expect_nothing().await;
    let mut users = house.watch.users.values().flatten();
    let others = users.any(|id| *id != house.bell.1);
    assert!(!others, "nothing is kept of removed files");
}

/// As after the end of a file system.
#[tokio::test]
async fn what_the_kernel_watches_no_longer_is_watched_anew() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    let kernel = house.watch.kernel.as_ref().unwrap();
    house.watch.files[&id].places.iter().for_each(|(watch, _)| kernel.unwatch(*watch));
    // The directories above are those of the other file, too.
    assert_eq!(house.report().await, [house.bell.1, id]);
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn when_the_queue_overflows_every_file_may_have_changed() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    house.write("left", "one");
    // Two events each.
    for _ in 0..=limit / 4 {
        house.rename("left", "right");
        house.rename("right", "left");
    }
    assert_eq!(house.report().await, [house.bell.1, id]);
    house.expect_nothing().await;
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn without_inotify_files_are_looked_at() {
    let mut house = House::with(FileWatch::with(None));
    house.create_directory("directory");
    house.write("file", "one");
    let directory = house.path("directory");
    let id = house.watch.add(&house.path("file"), Some(&directory)).unwrap();
    house.write("file", "another length");
    house.expect(id).await;
    house.write("file.new", "another length");
    house.rename("file.new", "file");
    house.expect(id).await;
    house.write("directory/other", "");
    house.expect(id).await;
    house.watch.remove(id);
    house.write("file", "gone");
    house.expect_nothing().await;
}

#[tokio::test]
async fn a_queue_that_fails_makes_every_file_be_looked_at() {
    let mut house = House::new();
    house.write("file", "one");
    let id = house.add("file");
    house.watch.lose_kernel(&io::Error::other("a test"));
    assert_eq!(house.report().await, [house.bell.1, id]);
    house.expect_it_works(id, "file").await;
}

#[tokio::test]
async fn an_empty_path_is_an_error() {
    let mut watch = FileWatch::new();
    assert_eq!(watch.add(Path::new(""), None).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}
