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
        ("/", False),
    ],
)
def test_deepest_mount_tells(tmp_path: Path, path: str, expected: bool):
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert is_on_fuse(Path(path), table) is expected


def test_plain_folders_of_this_machine_are_none(tmp_path: Path):
    assert not is_on_fuse(tmp_path)
    assert not is_on_fuse(tmp_path, tmp_path / "no table")
