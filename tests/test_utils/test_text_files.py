from __future__ import annotations

import pytest

from omh_mmseg.utils.text import message_of
from omh_mmseg.utils.text_files import element_lines, parse_json, read_text

TEXT = 'scène 1\nb #2\n\nc\n'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_every_unicode_and_line_end(tmp_path, encoding, end):
    (tmp_path / 'a.txt').write_bytes(TEXT.replace('\n', end).encode(encoding))
    assert read_text(tmp_path / 'a.txt') == TEXT


def test_another_encoding_names_file_and_line(tmp_path):
    (tmp_path / 'a.txt').write_bytes('eins\nzwei\nstraße\n'.encode('cp1252'))
    with pytest.raises(ValueError, match=r'a.txt, line 3: this is not UTF-8 .*; save the file as UTF-8'):
        read_text(tmp_path / 'a.txt')


def test_json_errors_name_file_and_line():
    with pytest.raises(ValueError, match=r'x.json is not JSON: line 2, .*no comma before a closing bracket'):
        parse_json('{"classes": ["a",\n "b",]}', 'x.json')
    with pytest.raises(ValueError, match=r'x.json is not JSON: line 1, .*delimiter'):
        parse_json('{"classes" ["a"]}', 'x.json')
    with pytest.raises(ValueError, match=r"x.json, line 2: the key 'a' is there twice"):
        parse_json('{"a": 1,\n"a": 2}', 'x.json')


def test_lines_of_elements():
    assert element_lines('{"a": [\n1, [2,\n 3],\n\n"]"], "b": 2}', 'a') == [2, 2, 5]
    assert element_lines('{"a": []}', 'a') == element_lines('{"a": []}', 'b') == []


def test_message_of_a_worker_is_that_of_the_error():
    traceback = 'Original Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
    caught = 'Caught LabelFileError in DataLoader worker process 1.\n'
    error = OSError(f'{caught}{traceback}a.b.LabelFileError: x.png: bad\n')
    assert message_of(error) == 'x.png: bad'
    assert message_of(ValueError('plain: text')) == 'plain: text'
