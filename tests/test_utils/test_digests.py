from omh_mmseg.utils.digests import plain_settings
from omh_mmseg.utils.settings import Text


def test_settings_are_of_plain_types_at_every_depth():
    # Checkpoints are read as plain data: a subclass of a text in their record would make them unreadable.
    class Whole(int):
        pass

    given = dict(a=Text('x'), b=[Text('y'), (Whole(3), True, 0.5, None)], c={Text('d'): dict(type=Text('Conv'))}, e=int)
    plain = plain_settings(given)
    assert plain == dict(a='x', b=['y', [3, True, 0.5, None]], c=dict(d=dict(type='Conv')), e='int')
    types = {type(value) for value in (plain['a'], plain['b'][0], *plain['b'][1], *plain['c'], plain['c']['d']['type'])}
    assert types == {str, int, bool, float, type(None)}
