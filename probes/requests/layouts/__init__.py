"""The layouts that editguard reads, one module each.

To add one, copy a module and change it.
The registry `layout.LAYOUTS` finds it because its file stands here; a file whose name begins with an underscore is no layout.
"""
