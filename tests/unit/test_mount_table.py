from pathlib import Path

import pytest

from sdapi.mount_table import is_on_fuse

#: as the kernel writes it: FUSE mounts, one in a folder with a space, and one over another mount
TABLE = r"""22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 0:22 / /proc rw,nosuid - proc proc rw
40 22 0:41 / /code/data-oss rw,nosuid,nodev shared:9 - fuse.ossfs ossfs rw,user_id=0,group_id=0
41 40 0:42 / /code/data-oss/disk rw - ext4 /dev/vdb rw
42 22 0:43 / /mnt/my\040bucket rw - fuse.s3fs s3fs rw
43 22 0:44 / /twice rw - tmpfs tmpfs rw
44 43 0:45 / /twice rw - fuse.ossfs ossfs rw
45 22 0:46 / /disk rw - fuseblk /dev/sdb1 rw
46 22 0:47 / /plain rw - fuse jindo rw
47 22 0:48 / /merged rw - fuse.mergerfs a:b rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/code/data-oss", True),
        ("/code/data-oss/outputs/x", True),
        ("/code/data-oss-2", False),
        ("/code/data-oss/disk/x", False),
        ("/mnt/my bucket/x", True),
        ("/twice", True),
        ("/proc/1", False),
        ("/disk/x", False),
        ("/plain/x", True),
        ("/merged/x", False),
        ("/", False),
    ],
)
def test_deepest_mount_tells(tmp_path: Path, path: str, expected: bool):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert is_on_fuse(Path(path), table) is expected


def test_link_into_a_mount_lies_on_it(tmp_path: Path):
    table = tmp_path / "mountinfo"
    table.write_text(f"40 22 0:41 / {tmp_path}/bucket rw - fuse.ossfs ossfs rw\n")
    (tmp_path / "bucket").mkdir()
    (tmp_path / "link").symlink_to("bucket")
    assert is_on_fuse(tmp_path / "link" / "not there yet", table)
    (tmp_path / "bucket" / "out").symlink_to(tmp_path)
    assert not is_on_fuse(tmp_path / "bucket" / "out", table)


def test_container_whose_root_is_on_fuse_has_no_mount_for_that(tmp_path: Path):
    table = tmp_path / "mountinfo"
    table.write_text("22 1 0:21 / / rw - fuse.rootless overlay rw\n")
    assert not is_on_fuse(tmp_path, table)


def test_plain_folders_of_this_machine_are_none(tmp_path: Path):
    assert not is_on_fuse(tmp_path)
    assert not is_on_fuse(tmp_path, tmp_path / "no table")
