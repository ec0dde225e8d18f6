"""What a wheel for Linux must be: small, stripped, of no library but the system's, with nothing of
the machine that built it, and with a valid bill of materials.

python inspect_wheel.py WHEEL; needs pyelftools and cyclonedx-python-lib[json-validation].
"""

import io
import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from elftools.elf.elffile import ELFFile

MOST_BYTES = 3_000_000
SYSTEM = r"lib(c|m|pthread)\.so\.\d|ld-linux-[\w-]+\.so\.\d|libc\.musl-\w+\.so\.1"
FOREIGN_PATH = rb"/(?:build|home|io|project|root|tmp|usr|Users|opt)/[\w./-]+"


def faults_of_module(name: str, content: bytes) -> list[str]:
    """What is wrong with a compiled module."""
    elf = ELFFile(io.BytesIO(content))
    sections = [section.name for section in elf.iter_sections()]
    exported = {
        symbol.name
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
    }
    tags = list(elf.get_section_by_name(".dynamic").iter_tags())
    needed = [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
    stack = [part for part in elf.iter_segments() if part["p_type"] == "PT_GNU_STACK"]
    return [
        *[f"exports {symbol}" for symbol in exported - {f"PyInit_{name.split('.')[0]}"}],
        *[f"has {section}" for section in sections if re.match(r"\.symtab|\.z?debug", section)],
        *[f"needs {library}" for library in needed if not re.fullmatch(SYSTEM, library)],
        *[f"has {tag.entry.d_tag}" for tag in tags if "PATH" in str(tag.entry.d_tag)],
        *[f"names {path.decode()}" for path in set(re.findall(FOREIGN_PATH, content))],
        *["has an executable stack" for part in stack if part["p_flags"] & 1],
    ]


def faults_of(wheel: Path) -> list[str]:
    """What is wrong with a wheel, a line each."""
    faults = []
    if wheel.stat().st_size >= MOST_BYTES:
        faults.append(f"{wheel.stat().st_size} bytes")
    with zipfile.ZipFile(wheel) as archive:
        contents = {PurePosixPath(name): archive.read(name) for name in archive.namelist()}
    modules = {path: content for path, content in contents.items() if ".so" in path.suffixes}
    bills = {path: content for path, content in contents.items() if path.parent.name == "sboms"}
    if len(modules) < 4 or not bills:
        faults.append(f"{len(modules)} compiled modules, {len(bills)} bills of materials")
    for path, content in modules.items():
        faults += [f"{path}: {fault}" for fault in faults_of_module(path.name, content)]
    for path in contents:
        if path.suffix in (".c", ".h", ".pyx", ".pxd") or "fastrnn.libs" in path.parts:
            faults.append(f"{path}: not to be installed")
    for path, content in bills.items():
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode())
        faults += [f"{path}: {error}"] if error else []
    return faults


if __name__ == "__main__":
    found = faults_of(Path(sys.argv[1]))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
