from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader

from omh_mmseg.utils.downloads import DownloadError, cached_path, read_address, split_digest

CONTENT = bytes(range(256)) * 40


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def flipped(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def get(address: str) -> bytes:
    return read_address(address, Path.read_bytes)


def failing(address: str, *words: str) -> None:
    """Getting it fails in one line that has the address, the words and a remedy, and leaves nothing of the file."""
    with pytest.raises(DownloadError) as error:
        get(address)
    text = str(error.value)
    assert '\n' not in text
    for word in (split_digest(address)[0], *words, 'model.backbone.checkpoint=/path/to/file.pth'):
        assert word in text
    path = cached_path(split_digest(address)[0])
    assert [file.name for file in path.parent.iterdir() if not file.name.endswith('.lock')] == []


@pytest.mark.parametrize('given', ['', '#sha256=FULL', '#sha256=PREFIX'])
def test_right_file_is_fetched_once(serve, given):
    address = serve.add('model.pth', CONTENT)
    address += given.replace('FULL', digest(CONTENT)).replace('PREFIX', digest(CONTENT)[:12].upper())
    assert get(address) == get(address) == CONTENT
    assert serve.asked == ['/model.pth']


def test_name_with_its_digest(serve):
    name = f'model_20220825-{digest(CONTENT)[:8]}.pth'
    address = serve.add(name, CONTENT)
    assert get(address) == CONTENT
    wrong = serve.add('model_20220825-6f8c3a4b.pth', CONTENT)
    failing(wrong, 'should begin with 6f8c3a4b', digest(CONTENT))
    wrong = serve.add(name, flipped(CONTENT))
    cached_path(address).unlink()
    failing(wrong, f'should begin with {digest(CONTENT)[:8]}', digest(flipped(CONTENT)))
    assert get(serve.add(name, CONTENT)) == CONTENT
    # What is given counts, and a day is no digest.
    assert get(serve.add('other-6f8c3a4b.pth', CONTENT) + f'#sha256={digest(CONTENT)[:8]}') == CONTENT
    assert get(serve.add('other-20220825.pth', CONTENT)) == CONTENT


def test_flipped_byte(serve):
    address = serve.add('model.pth', flipped(CONTENT)) + f'#sha256={digest(CONTENT)}'
    failing(address, f'should begin with {digest(CONTENT)}')
    serve.add('model.pth', CONTENT)
    assert get(address) == CONTENT


@pytest.mark.parametrize('given', ['', f'#sha256={digest(CONTENT)}'])
def test_byte_that_flips_in_the_cache(serve, given):
    address = serve.add('model.pth', CONTENT)
    assert get(address + given) == CONTENT
    cached_path(address).write_bytes(flipped(CONTENT))
    assert get(address + given) == CONTENT
    cached_path(address).write_bytes(CONTENT[:-1])
    assert get(address + given) == CONTENT
    assert len(serve.asked) == 3
    # A damaged file does not outlive a failing server either.
    cached_path(address).write_bytes(flipped(CONTENT))
    serve.fail('model.pth', 500)
    failing(address + given, 'HTTP Error 500')


@pytest.mark.parametrize('cut', [0, 1, 5000, len(CONTENT) - 1])
def test_cut_connection_and_later_success(serve, cut):
    address = serve.add('model.pth', CONTENT, cut=cut)
    failing(address, f'broke off after {cut} of {len(CONTENT)} bytes')
    failing(address, f'broke off after {cut} of {len(CONTENT)} bytes')
    serve.add('model.pth', CONTENT)
    assert get(address) == CONTENT


@pytest.mark.parametrize(('status', 'reason'), [(404, 'Not Found'), (500, 'Internal'), (503, 'Unavailable')])
def test_server_error_and_later_success(serve, status, reason):
    address = serve.fail('model.pth', status)
    failing(address, f'HTTP Error {status}', reason)
    serve.add('model.pth', CONTENT)
    assert get(address) == CONTENT


def test_no_server():
    failing('http://127.0.0.1:9/model.pth', 'refused')


def test_one_name_at_two_addresses(serve):
    other = CONTENT[::-1]
    first, second, third = (serve.add(f'{folder}/model.pth', CONTENT) for folder in 'abc')
    serve.add('b/model.pth', other)
    query = serve.add('a/model.pth?version=2', other)
    found = [get(address) for address in (first, second, third, query, first)]
    assert found == [CONTENT, other, CONTENT, other, CONTENT]
    assert len({cached_path(address).parent for address in (first, second, third, query)}) == 4


def test_unknown_length_shows_in_reading(serve):
    """Nothing but the reader can tell; what it refuses does not stay."""
    address = serve.add('model.pth', CONTENT, cut=5000, announced=False)

    def read(path: Path) -> bytes:
        if path.stat().st_size != len(CONTENT):
            raise RuntimeError('not whole')
        return path.read_bytes()

    with pytest.raises(RuntimeError, match='not whole'):
        read_address(address, read)
    assert not cached_path(address).exists()
    serve.add('model.pth', CONTENT, announced=False)
    assert read_address(address, read) == CONTENT


def test_reader_does_not_remove_what_a_digest_vouches_for(serve):
    def refuse(path: Path) -> None:
        raise ValueError('not of this kind')

    address = serve.add('model.pth', CONTENT) + f'#sha256={digest(CONTENT)}'
    with pytest.raises(ValueError, match='not of this kind'):
        read_address(address, refuse)
    assert get(address) == CONTENT and len(serve.asked) == 1


def test_processes_at_once(serve):
    """One downloads, the other waits and takes the same file."""
    address = serve.add('model.pth', CONTENT)
    serve.ready.clear()
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [context.Process(target=lambda: results.put(get(address) == CONTENT)) for _ in range(2)]
    for worker in workers:
        worker.start()
    while not serve.asked:
        workers[0].join(0.01)
    workers[1].join(0.3)
    serve.ready.set()
    assert [results.get(timeout=60) for _ in workers] == [True, True]
    for worker in workers:
        worker.join(20)
    assert serve.asked == ['/model.pth']


def test_cache_that_cannot_be_made(serve, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    with pytest.raises(PermissionError, match='model.pth cannot be kept in .*; set .* TORCH_HOME to a folder'):
        get(serve.add('model.pth', CONTENT))


@pytest.mark.parametrize('wrong', ['', 'abc', '0' * 65, 'g' * 64])
def test_digest_of_another_form(wrong):
    with pytest.raises(ValueError, match='sha256 must be 8 to 64 hexadecimal digits'):
        get(f'http://127.0.0.1:9/model.pth#sha256={wrong}')


# ---- mmengine's loader, and so load_from, CHECKPOINT addresses and mmseg's tools


def load(address: str) -> dict:
    return CheckpointLoader.load_checkpoint(address, map_location='cpu')


def test_mmengine_loads_by_address_not_by_name(serve):
    weights = {value: dict(state_dict=dict(weight=torch.full((2,), value))) for value in (1, 2)}
    addresses = [serve.add(f'{value}/iter_5.pth', content) for value, content in weights.items()]
    for address, value in [*zip(addresses, (1, 2)), *zip(addresses, (1, 2))]:
        assert load(address)['state_dict']['weight'].tolist() == [value, value]
    assert len(serve.asked) == 2


def test_mmengine_refuses_what_is_damaged(serve):
    content = dict(state_dict=dict(weight=torch.ones(2000)))
    address = serve.add('iter_5.pth', content)
    sound = serve.content('iter_5.pth')
    serve.add('iter_5.pth', sound, cut=3000)
    with pytest.raises(DownloadError, match=f'Cannot download {address}: .*broke off after 3000 of'):
        load(address)
    serve.add('iter_5.pth', sound[:3000])
    with pytest.raises(ValueError, match=f'{address} is damaged'):
        load(address)
    serve.add('iter_5.pth', sound)
    assert list(load(address)) == ['state_dict']
    with pytest.raises(DownloadError, match='should begin with 00000000'):
        load(f'{address}#sha256=00000000')


def test_mmengine_reads_the_file_as_data(serve, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'trace'),)

    with pytest.raises(ValueError, match='OMH_TRUST=1'):
        load(serve.add('iter_5.pth', dict(state_dict={}, payload=Payload())))
    assert not (tmp_path / 'trace').exists()
